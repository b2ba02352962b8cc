from __future__ import annotations

from pocketlens.hits import Hit, Hits
from pocketlens.show import hits_heading, hits_table, hits_values, printable


def answer(*scores: float) -> Hits:
    found = [Hit(f"{rank}\n.png", "u", score, 0.51239, 3.456, 0.0876, 1, 1, {}) for rank, score in enumerate(scores)]
    names = (("a \x1b[31mcat", 1.0), ("a dog", 0.57142))
    return Hits(found, method="freedom", why="asked for", parameters={"names_kept": 2.0}, names=names)


def test_the_score_is_shown_where_it_is_not_the_cosine() -> None:
    assert hits_table(answer(0.51239)) == [
        "rank  cosine      z  margin  picture",
        "   1   0.512   3.46   0.088  0\\n.png",
    ]
    assert hits_table(answer(-1.23456e-8, -0.5)) == [
        "rank      score  cosine      z  margin  picture",
        "   1  -1.23e-08   0.512   3.46   0.088  0\\n.png",
        "   2       -0.5   0.512   3.46   0.088  1\\n.png",
    ]
    assert hits_table(Hits([], method="text", why="")) == ["rank  cosine      z  margin  picture"]


def test_the_heading_says_the_method_and_what_the_picture_was_taken_for() -> None:
    assert hits_heading(answer()) == ["method: freedom (asked for)", "taken for: a \\x1b[31mcat 1.00, a dog 0.57"]
    assert hits_heading(Hits([], method="sum", why="w")) == ["method: sum (w)"]


def test_small_scores_keep_their_digits_in_json() -> None:
    told = hits_values(answer(-1.23456789e-8))
    assert told["hits"] == [
        {
            "id": "0\n.png", "uri": "u", "score": -1.2346e-08, "cosine": 0.5124, "z": 3.46, "margin": 0.0876,
            "attributes": {},
        }
    ]  # fmt: skip
    assert told["names"][1] == {"name": "a dog", "weight": 0.5714}
    assert (told["method"], told["why"], told["parameters"]) == ("freedom", "asked for", {"names_kept": 2.0})


def test_control_characters_stay_on_their_line() -> None:
    assert printable("a\nb\x7f\u2028é") == "a\\nb\\x7f\\u2028é"
