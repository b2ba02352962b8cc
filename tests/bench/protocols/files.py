"""Tiny files of every protocol's official schema, worked out by hand, and pictures of one colour each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 230, 20),
    "blue": (20, 20, 230),
    "white": (250, 250, 250),
    "grey": (90, 90, 90),
    "yellow": (230, 230, 20),
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_picture(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), COLOURS[colour]).save(path)


def write_emojicir(folder: Path) -> Path:
    rows = ["id\tconcept\tvendor\tname\tbase\tsplit\tencoder"]
    for vendor in ("a", "b"):
        for colour in COLOURS:
            encoder = "validation" if colour == "blue" else "train"
            row = (f"{vendor}/{colour}.png", colour, vendor, f"a {colour} thing", f"base {colour}", "test", encoder)
            rows.append("\t".join(row))
            write_picture(folder / "pictures" / vendor / f"{colour}.png", colour)
    folder.mkdir(exist_ok=True)
    (folder / "pictures.tsv").write_text("\n".join(rows) + "\n")
    queries = [
        _emoji_query("q1", "hue", "a/red.png", "is green", "green"),
        _emoji_query("q2", "hue", "b/red.png", "is blue", "blue!b", answers=["b/blue.png"]),
        _emoji_query("q3", "light", "a/grey.png", "is white", "white"),
        _emoji_query("q4", "negative", "a/grey.png", "is green", "green", negative="red", unwanted=["a/red.png"]),
        _emoji_query("q5", "hue", "a/red.png", "is green", "green") | {"split": "train"},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    return folder


def _emoji_query(
    id: str,
    family: str,
    reference: str,
    text: str,
    target: str,
    *,
    answers: list[str] | None = None,
    negative: str | None = None,
    unwanted: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "id": id, "family": family, "split": "test", "reference": reference, "text": text, "phrasing": 0,
        "target": target, "answers": answers or [f"{vendor}/{target}.png" for vendor in ("a", "b")],
        "negative": negative, "unwanted": unwanted or [], "seen": not target.startswith("blue"),
    }  # fmt: skip


def write_fashioniq(folder: Path) -> Path:
    for category in ("dress", "shirt", "toptee"):
        names = [f"{category}-{colour}" for colour in COLOURS]
        for name in names:
            suffix = "jpg" if name.endswith("white") else "png"
            write_picture(folder / "images" / f"{name}.{suffix}", name.rpartition("-")[2])
        entry = {"target": f"{category}-green", "candidate": f"{category}-red", "captions": ["is green. ", "not red?"]}
        for split in ("val", "train"):
            write_json(folder / f"captions/cap.{category}.{split}.json", [entry, entry | {"captions": ["a", "b"]}])
            write_json(folder / f"image_splits/split.{category}.{split}.json", names)
    return folder


def write_cirr(folder: Path) -> Path:
    names = {colour: f"dev-1-0-{colour}" for colour in COLOURS}
    for split in ("val", "test1"):
        paths = {name: f"./dev/{name}.png" for name in names.values()}
        write_json(folder / f"image_splits/split.rc2.{split}.json", paths)
        entries = [_cirr_pair(12060 + i, names, target) for i, target in enumerate(("green", "blue"))]
        if split == "test1":
            for entry in entries:
                del entry["target_hard"], entry["target_soft"], entry["img_set"]["target_rank"]
        write_json(folder / f"captions/cap.rc2.{split}.json", entries)
    for colour, name in names.items():
        write_picture(folder / "dev" / f"{name}.png", colour)
    return folder


def _cirr_pair(id: int, names: dict[str, str], target: str) -> dict[str, Any]:
    return {
        "pairid": id, "reference": names["red"], "target_hard": names[target], "target_soft": {names[target]: 1.0},
        "caption": f"make it {target}",
        "img_set": {"id": 36, "members": list(names.values()), "reference_rank": 0, "target_rank": 1},
    }  # fmt: skip


def write_circo(folder: Path) -> Path:
    ids = {colour: 100 + i for i, colour in enumerate(COLOURS)}
    images = [{"id": id, "file_name": f"{id:012d}.jpg", "height": 30, "width": 40} for id in ids.values()]
    write_json(folder / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images})
    for colour, id in ids.items():
        write_picture(folder / "COCO2017_unlabeled/unlabeled2017" / f"{id:012d}.jpg", colour)
    entries: list[dict[str, Any]] = [
        {
            "reference_img_id": ids["red"], "target_img_id": ids[target], "relative_caption": f"is {target}",
            "shared_concept": "a colour", "gt_img_ids": [ids[target], ids["white"]], "id": number,
            "semantic_aspects": ["addition", "viewpoint"][: number + 1],
        }
        for number, target in enumerate(("green", "blue"))
    ]  # fmt: skip
    write_json(folder / "annotations/val.json", entries)
    kept = ("reference_img_id", "relative_caption", "shared_concept", "id")
    write_json(folder / "annotations/test.json", [{key: entry[key] for key in kept} for entry in entries])
    return folder


def write_genecis(folder: Path) -> Path:
    coco = {colour: 10 + i for i, colour in enumerate(COLOURS)}
    for colour, id in coco.items():
        write_picture(folder / "val2017" / f"{id:012d}.jpg", colour)
    genome = Image.new("RGB", (300, 100), COLOURS["grey"])
    boxes = {}
    for place, colour in enumerate(COLOURS):
        genome.paste(COLOURS[colour], (50 * place, 0, 50 * place + 50, 100))
        boxes[colour] = {"image_id": 7, "instance_bbox": [50 * place + 30.0, 50.0, 18.0, 20.5]}
    (folder / "VG_100K_all").mkdir(parents=True)
    genome.save(folder / "VG_100K_all" / "7.jpg", quality=95)
    for task in ("focus_attribute", "change_attribute", "focus_object", "change_object"):
        items = boxes if task.endswith("attribute") else {c: {"val_image_id": id} for c, id in coco.items()}
        entry = {
            "condition": "green",
            "reference": items["red"],
            "target": items["green"],
            "gallery": [items[colour] for colour in ("blue", "white", "grey", "yellow")],
        }
        write_json(folder / "genecis" / f"{task}.json", [entry])
    return folder


def write_flickr30k(folder: Path) -> Path:
    images = []
    for number, colour in enumerate(COLOURS):
        sentences = [{"tokens": [], "raw": f"{words} {colour}", "imgid": number, "sentid": i}
                     for i, words in enumerate(("a", "one", "some", "all", "no", "sixth"))]  # fmt: skip
        split = "train" if colour == "yellow" else "test"
        images.append({"imgid": number, "sentences": sentences, "split": split, "filename": f"{colour}.jpg"})
        write_picture(folder / "flickr30k-images" / f"{colour}.jpg", colour)
    write_json(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return folder


def write_coco(folder: Path) -> Path:
    data: dict[str, Any] = {"images": [], "annotations": []}
    for number, colour in enumerate(COLOURS):
        data["images"].append({"id": number, "file_name": f"{number:012d}.jpg"})
        write_picture(folder / "val2017" / f"{number:012d}.jpg", colour)
        data["annotations"].append({"image_id": number, "id": 50 - number, "caption": f"a {colour}"})
    write_json(folder / "annotations/captions_val2017.json", data)
    images = [
        {"filepath": "val2017", "filename": f"{number:012d}.jpg", "split": "test", "cocoid": number,
         "sentences": [{"raw": f"a {colour}"}]}
        for number, colour in enumerate(COLOURS)
    ]  # fmt: skip
    write_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return folder


def add_pictures(folder: Path, protocol: str, count: int) -> None:
    """Give CIRR's test1 or CIRCO more pictures, in shades of grey: a server wants fifty for a query."""
    listed = folder / {
        "cirr": "image_splits/split.rc2.test1.json",
        "circo": "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
    }[protocol]  # fmt: skip
    content = json.loads(listed.read_text())
    for number in range(200, 200 + count):
        path = folder / "dev" / f"dev-{number}.png"
        if protocol == "cirr":
            content[path.stem] = f"./dev/{path.name}"
        else:
            path = folder / INDEXED["circo"] / f"{number:012d}.jpg"
            content["images"].append({"id": number, "file_name": path.name, "height": 30, "width": 40})
        Image.new("RGB", (40, 30), (number, number, number)).save(path)
    write_json(listed, content)


WRITERS = {
    "emojicir": write_emojicir,
    "fashioniq": write_fashioniq,
    "cirr": write_cirr,
    "circo": write_circo,
    "genecis": write_genecis,
    "flickr30k": write_flickr30k,
    "coco": write_coco,
}
INDEXED = {
    "emojicir": "pictures",
    "fashioniq": "images",
    "cirr": ".",
    "circo": "COCO2017_unlabeled/unlabeled2017",
    "genecis": ".",
    "flickr30k": "flickr30k-images",
    "coco": ".",
}
