"""Made-up queries, for when there is no list of real ones. They are composed from the word lists below.

They imitate what people type to find their own photos: mostly a few English words, now and then a single one, a long
sentence, a date, a file name, an emoji, another language or a slip of the keyboard. The shares are guesses, not
measured; a list of real queries (`--texts`) is better.
"""

from __future__ import annotations

import random
import re

_WORDS = {
    "thing": (
        "bicycle", "birthday cake", "wine bottle", "car", "coffee cup", "umbrella", "christmas tree", "whiteboard",
        "passport", "receipt", "guitar", "wedding dress", "sofa", "bookshelf", "boat", "train", "tent", "campfire",
        "sunflower", "pizza", "pancake", "apple pie", "snowman", "kite", "piano", "parking ticket", "license plate",
        "washing machine", "serial number", "bus timetable", "menu", "business card", "oak tree", "old map",
        "left shoe", "soup recipe", "living room", "kitchen", "garden", "sandcastle", "motorbike", "painting",
        "lighthouse", "bridge", "church", "waterfall", "rainbow", "full moon", "suitcase", "sparkler", "balloon",
        "screenshot",
    ),
    "being": (
        "dog", "black cat", "baby", "two kids", "my daughter", "grandma", "grandpa", "my brother", "a group of friends",
        "a little girl", "old man", "woman in a hat", "man with a beard", "our puppy", "horse", "seagull", "cow",
        "duck", "squirrel", "bride and groom", "football team", "cyclist", "fisherman", "street musician", "people",
        "my parents", "goldfish", "a flock of sheep", "student", "the neighbours",
    ),
    "attribute": (
        "red", "blue", "green", "yellow", "black", "white", "striped", "old", "new", "small", "huge", "broken", "empty",
        "wooden", "handwritten", "blurry", "colourful", "rusty", "wet", "dirty", "shiny", "round", "half eaten",
        "folded", "homemade", "antique",
    ),
    "action": (
        "sleeping", "running", "swimming", "laughing", "dancing", "eating ice cream", "playing chess", "reading a book",
        "riding a bike", "jumping", "climbing a tree", "opening presents", "blowing out candles", "hugging", "waving",
        "cooking", "looking out of the window", "holding a balloon", "wearing sunglasses", "sitting on a bench",
        "waiting for the train", "brushing teeth", "catching a ball", "posing", "asleep in the car",
    ),
    "place": (
        "on the beach", "in the snow", "at the airport", "in the kitchen", "on a mountain", "in the park", "at school",
        "in paris", "in new york", "at the lake", "in the back garden", "on the balcony", "under a bridge", "downtown",
        "at the zoo", "in the forest", "by the river", "on a boat", "in the office", "at a restaurant", "in the car",
        "on the stairs", "in the living room", "at grandma's house", "near the old harbour", "in the classroom",
    ),
    "time": (
        "at sunset", "at night", "in the morning", "in winter", "last summer", "in autumn", "in the rain", "at dawn",
        "on christmas eve", "on a sunny day", "in fog", "after the party", "before the wedding", "during lunch",
    ),
    "single": (
        "selfie", "sunset", "cat", "dogs", "food", "flowers", "beach", "snow", "mountains", "wedding", "document",
        "invoice", "mum", "sky", "cake", "documents", "concert", "graffiti", "recipes", "whiskers", "lasagna",
        "halloween", "skiing", "tattoo", "mushrooms", "airplane", "fog", "kittens", "screenshots", "memes",
    ),
    "foreign": (
        "coucher de soleil à la plage", "gâteau d'anniversaire", "chien dans la neige", "crème brûlée",
        "niño en la playa", "perro durmiendo", "montaña nevada", "Hund am Strand", "Weihnachtsmarkt bei Nacht",
        "Straße im Regen", "rött hus vid sjön", "pôr do sol", "ragazza con ombrello", "zdjęcie z wesela",
        "güzel çiçekler", "собака на пляже", "новый год", "закат над морем", "γάτα στο παράθυρο", "猫",
        "雪山", "東京タワー 夜景", "誕生日ケーキ", "강아지", "벚꽃", "عيد ميلاد", "قطة سوداء", "שקיעה בים",
        "सूर्यास्त", "ภูเขา",
    ),
    "emoji": ("😀", "❤️", "🎂", "🐶", "🌅", "🏖️", "🎄", "👶", "🐈‍⬛", "🇮🇹", "👍🏽", "🍕🍕"),
    "year": tuple(str(year) for year in range(1996, 2027)),
    "day": tuple(str(day) for day in range(1, 29)),
    "two": tuple(f"{number:02}" for number in range(1, 13)),
    "four": tuple(f"{number:04}" for number in range(17, 10_000, 73)),
    "month": ("january", "february", "march", "april", "june", "july", "august", "october", "december"),
}  # fmt: skip

# A kind of query, with its share in per cent and the shapes that it takes.
_SHAPES = {
    "one word": (5, ("{single}", "{thing}")),
    "two or three words": (
        43,
        ("{attribute} {thing}", "{being} {action}", "{thing} {place}", "my {thing}", "{single} {place}",
         "{thing} {time}", "a {attribute} {thing}", "{being} {place}"),
    ),
    "four or more words": (
        35,
        ("{being} {action} {place}", "{attribute} {thing} {place}", "{being} {place} {time}", "{thing} and {thing}",
         "{being} {action} {time}", "photo of {being} {action}", "a {attribute} {thing} {place}",
         "{being} with {thing}", "{attribute} and {attribute} {thing}", "{attribute} {thing} next to {thing}"),
    ),
    "up to a dozen words": (
        7,
        ("{being} {action} {place} {time}", "close-up of a {attribute} {thing} {place}",
         "picture of {being} and {being} {place}", "the {attribute} {thing} we saw {place} {time}",
         "{attribute} {thing} with {attribute} {thing} {place}", "where did i put the {attribute} {thing}"),
    ),
    "a sentence": (
        3,
        ("i am looking for the picture of {being} {action} {place} {time}, with the {thing} and the {thing}",
         "a photograph taken {place} {time} that shows {being} {action} while {being} is {action} behind the {thing}",
         "please find the photos where {being} and {being} are {action} {place}, just next to the {attribute} {thing}",
         "the one with {being} in front of the {attribute} {thing}, {action}, taken {place} by my sister i think"),
    ),
    "digits": (
        3,
        ("IMG_{four}.jpg", "DSC0{four}", "{thing} {year}", "{month} {year}", "{day} {month} {year}",
         "{day}.{two}.{year}", "{year}-{two}-{day} {thing}", "screenshot {year}{two}{four}.png",
         "{being} {place} {year}", "{day} {thing}"),
    ),
    "not plain english": (
        2,
        ("{foreign}", "{foreign}", "{foreign} {emoji}", "{thing} {emoji}", "{emoji} {being} {place}", "{emoji}"),
    ),
    "stray punctuation": (
        2,
        ("{attribute} {thing}??", "...{thing}", '"{thing}" {place}', "{thing} , {thing}", "{being} {action} !!",
         "- {thing} -", "{thing}/{thing} {place}", "({being}) {place}.", "#{single} #{single}", "{thing};{attribute}"),
    ),
}  # fmt: skip

_FIELD = re.compile(r"\{(\w+)\}")
_A_BEFORE_VOWEL = re.compile(r"\ba (?=[aeiou])")


def sample_queries(count: int, *, seed: int = 0) -> list[str]:
    """Return `count` queries that differ in more than upper and lower case.

    They are made up; see the module's docstring for what they imitate.

    Args:
        count: how many; the first n of a longer list are the same n queries.
        seed: lists of different seeds differ.
    """
    chance = random.Random(seed)
    kinds = list(_SHAPES.values())
    shares = [share for share, _ in kinds]
    found: dict[str, str] = {}  # by what towers that ignore case see
    while len(found) < count:
        [(_, shapes)] = chance.choices(kinds, shares)
        query = _fill(chance.choice(shapes), chance)
        found.setdefault(query.lower(), query)
    return list(found.values())


def _fill(shape: str, chance: random.Random) -> str:
    """Return the shape with a word in every field; as on a phone, now and then it starts with a capital letter."""
    query = _FIELD.sub(lambda field: chance.choice(_WORDS[field[1]]), shape)
    query = _A_BEFORE_VOWEL.sub("an ", query)
    return query[0].upper() + query[1:] if chance.random() < 0.15 else query
