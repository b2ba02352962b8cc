"""Evaluations of a model that is worked out by hand: a text is its colour, and so is a picture.

With (red, green, blue, 0.2): "green" is nearest to green, then yellow, grey, white; "blue" to blue, grey, white; a text
without a colour, such as "grey", is (0, 0, 0, 0.2) and nearest to grey. Texts are cut to four words. The emoji's two
vendors draw the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketlens.compose import METHODS
from pocketlens.compose.method import Value
from pocketlens.errors import BadImage, BadQuery, FormatError, MissingPart
from pocketlens.lens import open_lens
from pocketlens.model import Model
from pocketlens_bench.evaluate import evaluate
from pocketlens_bench.evaluate_kit import open_kit
from pocketlens_bench.evaluate_pictures import crop_square
from pocketlens_bench.evaluate_report import to_text
from pocketlens_bench.evaluate_results import Results, Summary
from pocketlens_bench.evaluate_task import Evaluation
from pocketlens_bench.protocols import PROTOCOLS, read_task
from pocketlens_bench.protocols.metrics import average_precision, recall_at
from pocketlens_bench.protocols.task import Task
from pocketlens_export.gallery.build import build_bundle
from tests.bench.protocols.conftest import Folders
from tests.bench.protocols.files import COLOURS, INDEXED, WRITERS


def run(
    folders: tuple[Path, Path],
    protocol: str,
    methods: Sequence[str] | None,
    *,
    task: Task | None = None,
    parameters: dict[str, dict[str, Value]] | None = None,
    limit: int | None = None,
    pictures: Path | None = None,
) -> Results:
    data, bundle = folders
    task = task or read_task(PROTOCOLS[protocol], data)
    with open_lens(bundle, threads=1) as lens:
        where = [pictures or data / INDEXED[protocol]]
        return evaluate(task, lens, open_kit(bundle, lens), methods, pictures=where, parameters=parameters, limit=limit)


@contextmanager
def evaluation(folders: tuple[Path, Path], protocol: str) -> Iterator[Evaluation]:
    data, bundle = folders
    with open_lens(bundle, threads=1) as lens:
        task = read_task(PROTOCOLS[protocol], data)
        yield Evaluation(task, lens, open_kit(bundle, lens), [data / INDEXED[protocol]])


def figures(summary: Summary) -> dict[str, float]:
    return {name: round(figure.value, 2) for name, figure in summary.whole.items()}


def test_emojicir_by_hand(coloured: Folders) -> None:
    results = run(coloured("emojicir"), "emojicir", ["text"])
    (summary,) = results.summaries
    # green: a and b, AP 1; blue: only b counts, behind its copy a, AP 1/2; white: a and b, AP 1
    assert summary.run.rankings[1].top[:2] == ("a/blue.png", "b/blue.png")
    assert figures(summary)["mAP@10"] == round(100 * (1 + 0.5 + 1) / 3, 2)
    assert figures(summary)["R@1"] == round(100 * 2 / 3, 2)
    assert figures(summary)["R@5"] == 100.0
    assert {name: round(f["mAP@10"].value, 2) for name, f in summary.families.items()} == {"hue": 75.0, "light": 100.0}
    assert summary.sizes == {"hue": 2, "light": 1}
    assert {name: round(f["mAP@10"].value, 2) for name, f in summary.strata.items()} == {"seen": 100.0, "unseen": 50.0}
    assert summary.stratum_sizes == {"seen": 2, "unseen": 1}
    assert summary.strata["unseen"]["mAP@10"].low == summary.strata["unseen"]["mAP@10"].high  # a single base


def test_the_reference_stays_in_emojicir_and_leaves_cirr(coloured: Folders) -> None:
    emoji = run(coloured("emojicir"), "emojicir", ["image"]).summaries[0]
    assert emoji.run.rankings[0].top[:2] == ("a/red.png", "b/red.png")
    cirr = run(coloured("cirr"), "cirr", ["image", "text"])
    image, text = cirr.summaries
    assert all("dev-1-0-red" not in ranking.top for ranking in (*image.run.rankings, *text.run.rankings))
    assert image.run.rankings[0].top[0] == "dev-1-0-yellow"  # after red itself, which has gone
    assert figures(image) | {"Rs@2": 0, "Rs@3": 0} == {
        "R@1": 0, "R@5": 100, "R@10": 100, "R@50": 100, "Rs@1": 0, "Rs@2": 0, "Rs@3": 0,
    }  # fmt: skip
    assert set(figures(text).values()) == {100.0}
    assert len(text.run.rankings[0].within or ()) == 5


def test_circo_by_hand(coloured: Folders) -> None:
    (summary,) = run(coloured("circo"), "circo", ["text"]).summaries
    green, blue = (ranking.top for ranking in summary.run.rankings)
    assert green[:4] == ("101", "105", "104", "103")  # the answers are first and fourth: (1 + 2/4) / 2
    assert blue[:3] == ("102", "104", "103")  # first and third: (1 + 2/3) / 2
    found = figures(summary)
    assert {found[f"mAP@{k}"] for k in (5, 10, 25, 50)} == {79.17}
    assert round(summary.families["viewpoint"]["mAP@5"].value, 2) == 83.33
    assert {found[f"R@{k}"] for k in (5, 10, 25, 50)} == {100.0}
    assert summary.sizes == {"addition": 2, "viewpoint": 1}


def test_genecis_by_hand_with_crops(coloured: Folders) -> None:
    results = run(coloured("genecis"), "genecis", ["text", "image"])
    text, image = results.summaries
    assert set(figures(text).values()) == {100.0}
    assert figures(image)["R@1"] == 0.0
    assert set(text.families) == {"focus_attribute", "change_attribute", "focus_object", "change_object"}
    assert [len(ranking.top) for ranking in text.run.rankings] == [5, 5, 5, 5]


def test_a_crop_is_padded_to_a_black_square() -> None:
    picture = Image.new("RGB", (100, 60), (200, 100, 50))
    square = crop_square(picture, (50.0, 10.0, 20.0, 10.0))
    assert square.size == (34, 34)  # 1.7 * 20
    pixels = np.asarray(square)
    assert (pixels[:8] == 0).all()  # 17 high: 8 rows above, 9 below
    assert (pixels[8:25] == (200, 100, 50)).all()
    assert (pixels[25:] == 0).all()
    with pytest.raises(BadImage, match="outside of the picture"):
        crop_square(picture, (500.0, 10.0, 20.0, 10.0))


def test_retrieval_by_hand_in_both_directions(coloured: Folders) -> None:
    results = run(coloured("flickr30k"), "flickr30k", None)
    text, back = results.summaries
    assert (text.run.method, back.run.method) == ("text", "picture to text")
    assert set(figures(text).values()) == {100.0}
    # the grey picture's captions have no colour: all others are nearer to it
    assert set(figures(back).values()) == {80.0}
    assert len(back.run.examples) == 5
    assert "queries with a picture" in results.skipped["sum"]


def test_the_mean_of_families_weighs_them_alike(coloured: Folders) -> None:
    data, _ = coloured("fashioniq")
    task = read_task(PROTOCOLS["fashioniq"], data)
    target = {"dress-0": "dress-green", "shirt-1": "shirt-grey", "toptee-0": "toptee-green", "toptee-1": "toptee-grey"}
    examples = [replace(e, answers=frozenset([target.get(e.id, "dress-white")])) for e in task.examples]
    kept = tuple(e for e in examples if e.id in target or e.id == "dress-1")
    task = replace(task, examples=kept, metrics=(recall_at(1),))
    (summary,) = run(coloured("fashioniq"), "fashioniq", ["text"], task=task).summaries
    # "Is green and not" is green, "A and b" grey: dress 1 of 2, shirt 1 of 1, toptee 2 of 2
    assert {name: f["R@1"].value for name, f in summary.families.items()} == {"dress": 50, "shirt": 100, "toptee": 100}
    assert figures(summary)["R@1"] == round(100 * (0.5 + 1 + 1) / 3, 2)
    assert all(name.startswith("dress") for name in summary.run.rankings[0].top)  # a category is ranked alone


def test_rankings_are_those_of_a_plain_second_implementation(coloured: Folders) -> None:
    """Sums and products in float64, without blocks; pictures that share a row follow each other in the items' order."""
    data, bundle = coloured("emojicir")
    with open_lens(bundle, threads=1) as lens:
        task = read_task(PROTOCOLS["emojicir"], data)
        ready = Evaluation(task, lens, open_kit(bundle, lens), [data / "pictures"])
        rows = {item.id: item.row for item in lens.gallery.items.read_all()}
        vectors = lens.gallery.index.vectors().astype(np.float64)
        runs = {name: ready.measure(METHODS[name]) for name in ("sum", "product")}
        for place, example in enumerate(ready.select(None)):
            v = lens.encode(image=data / "pictures" / str(example.reference)).astype(np.float64)
            t = lens.encode(text=example.texts[0]).astype(np.float64)
            scores = {
                "sum": vectors @ (v + t) / np.linalg.norm(v + t),
                "product": np.maximum(vectors @ v, 0) * np.maximum(vectors @ t, 0),
            }
            for name, expected in scores.items():
                top = runs[name].rankings[place].top
                assert sorted(top) == sorted(rows)
                along = np.array([expected[rows[picture]] for picture in top])
                assert (np.diff(along) < 1e-6).all()
                assert [top.index(f"b/{colour}.png") - top.index(f"a/{colour}.png") for colour in COLOURS] == [1] * 6


@pytest.mark.parametrize("method", ["image", "sum", "product", "weicom"])
def test_rankings_are_those_of_the_runtimes_search(method: str, shipped: Folders) -> None:
    data, bundle = shipped("emojicir")
    with open_lens(bundle, threads=1) as lens:
        ready = Evaluation(read_task(PROTOCOLS["emojicir"], data), lens, open_kit(bundle, lens), [data / "pictures"])
        measured = ready.measure(METHODS[method])
        for example, ranking in zip(measured.examples, measured.rankings, strict=True):
            picture = data / "pictures" / str(example.reference)
            hits = lens.search(image=picture, text=example.texts[0], method=method, k=12)
            assert [hit.id for hit in hits] == list(ranking.top)


def test_negatives_are_measured_three_times_apart(coloured: Folders) -> None:
    strengths: dict[str, dict[str, Value]] = {name: {"negative_strength": 1.0} for name in ("text", "image")}
    results = run(coloured("emojicir"), "emojicir", ["text", "image"], parameters=strengths)
    assert [(s.run.method, s.run.level) for s in results.negative] == [
        (method, level) for method in ("text", "image") for level in ("without", "vector", "score")
    ]
    assert {len(s.run.examples) for s in results.negative} == {1}
    assert all(s.run.examples[0].negative is None for s in results.summaries)
    plain, vector, score = results.negative[:3]
    assert (vector.run.values["negative_level"], score.run.values["negative_level"]) == ("vector", "score")
    assert "a/red.png" not in vector.run.rankings[0].top[:4]
    assert plain.run.rankings != vector.run.rankings
    assert set(figures(plain)) >= {"mAP@10", "unwanted@10"}
    assert "unwanted@10" not in figures(results.summaries[0])


def test_unwanted_pictures_are_counted(coloured: Folders) -> None:
    data, _ = coloured("emojicir")
    task = read_task(PROTOCOLS["emojicir"], data)
    examples = tuple(
        replace(e, unwanted=frozenset({"a/grey.png", "b/grey.png"}), reference="a/grey.png") for e in task.examples
    )
    results = run(coloured("emojicir"), "emojicir", ["image"], task=replace(task, examples=examples))
    assert figures(results.negative[0])["unwanted@10"] == 20.0


def test_values_reach_the_methods(coloured: Folders) -> None:
    with evaluation(coloured("emojicir"), "emojicir") as ready:
        image, text = (ready.measure(METHODS[name]).rankings for name in ("image", "text"))
        slerp = METHODS["slerp"]
        assert ready.measure(slerp, {"text_share": 0.0}).rankings == image
        assert ready.measure(slerp, {"text_share": 1.0}).rankings == text
        assert ready.measure(slerp).values["text_share"] == slerp.parameters["text_share"].default
        with pytest.raises(BadQuery, match="text_share"):
            ready.measure(slerp, {"text_share": 3.0})
    results = run(coloured("emojicir"), "emojicir", ["slerp"], parameters={"slerp": {"text_share": 1.0}})
    assert results.summaries[0].run.rankings == text


def test_all_methods_that_can_be_used_are_and_the_others_are_named(coloured: Folders) -> None:
    results = run(coloured("emojicir"), "emojicir", None)
    used = [summary.run.method for summary in results.summaries]
    assert {"image", "text", "sum", "slerp", "product", "weicom"} <= set(used)
    assert set(used) | set(results.skipped) == set(METHODS)
    assert any("inversion/lincir" in lack for lack in results.skipped["lincir"])
    with pytest.raises(MissingPart, match="method lincir needs an inversion network"):
        run(coloured("emojicir"), "emojicir", ["sum", "lincir"])
    with pytest.raises(BadQuery, match="nope"):
        run(coloured("emojicir"), "emojicir", ["nope"])


def test_missing_pictures_are_counted_and_do_not_flatter(tmp_path: Path, colours: Path) -> None:
    data = WRITERS["fashioniq"](tmp_path / "data")
    for name in ("dress-green.png", "shirt-red.png"):  # an answer, a reference
        (data / "images" / name).unlink()
    model = Model.open(colours)
    build_bundle(data / "images", tmp_path / "bundle", model=model, query_model=model)
    results = run((data, tmp_path / "bundle"), "fashioniq", ["sum"])
    assert results.gaps.missing == ("dress-green", "shirt-red")
    assert results.gaps.unreadable == {"shirt-red": "no file"}
    assert results.gaps.dropped == {
        "shirt-0": "its picture shirt-red cannot be read",
        "shirt-1": "its picture shirt-red cannot be read",
    }
    assert results.gaps.unanswerable == ("dress-0", "dress-1")
    (summary,) = results.summaries
    assert [example.id for example in summary.run.examples] == ["dress-0", "dress-1", "toptee-0", "toptee-1"]
    assert summary.families["dress"]["R@50"].value == 0.0  # what cannot be found counts as not found
    assert "2 queries have none of their answers in the gallery and count as wrong: dress-0, dress-1" in to_text(
        results
    )


def test_a_subset_that_the_gallery_lacks_a_part_of_is_not_ranked(tmp_path: Path, colours: Path) -> None:
    data = WRITERS["cirr"](tmp_path / "data")
    captions = data / "captions/cap.rc2.val.json"
    first, second = json.loads(captions.read_text())
    second["img_set"]["members"].remove("dev-1-0-grey")
    captions.write_text(json.dumps([first, second]))
    (data / "dev" / "dev-1-0-grey.png").unlink()
    model = Model.open(colours)
    build_bundle(data, tmp_path / "bundle", model=model, query_model=model)
    results = run((data, tmp_path / "bundle"), "cirr", ["text", "image"])
    assert results.gaps.incomplete == ("12060",)
    text, image = results.summaries
    assert [ranking.within is None for ranking in text.run.rankings] == [True, False]
    # of the image alone, yellow is nearest to red, then white; blue, the second query's answer, is the third or fourth
    place = (image.run.rankings[1].within or ()).index("dev-1-0-blue") + 1
    assert [figures(image)[f"Rs@{k}"] for k in (1, 2, 3)] == [100.0 * (place <= k) for k in (1, 2, 3)]
    assert figures(text)["Rs@1"] == figures(text)["R@1"] == 100.0
    assert "1 queries have candidates that the gallery lacks and are left out" in to_text(results)
    captions.write_text(json.dumps([first]))
    none = run((data, tmp_path / "bundle"), "cirr", ["text"])
    assert set(none.summaries[0].whole) == {"R@1", "R@5", "R@10", "R@50"}
    assert "Rs@1" in to_text(none)


def test_a_gallery_of_something_else_is_refused(coloured: Folders) -> None:
    data, _ = coloured("circo")
    _, other = coloured("cirr")
    with pytest.raises(
        FormatError, match=r"none of 2 queries can be evaluated; 6 of its pictures are not in the gallery"
    ):
        run((data, other), "circo", ["sum"])
    with pytest.raises(FormatError, match="--pictures"):
        run(coloured("cirr"), "cirr", ["sum"], pictures=data / "nowhere")


def test_a_folder_above_the_protocols_own_may_have_been_indexed(tmp_path: Path, colours: Path) -> None:
    data = WRITERS["circo"](tmp_path / "circo")
    model = Model.open(colours)
    build_bundle(tmp_path, tmp_path / "bundle", model=model, query_model=model)
    results = run((data, tmp_path / "bundle"), "circo", ["text"], pictures=tmp_path)
    assert figures(results.summaries[0])["mAP@10"] == 79.17
    assert not results.gaps.missing


def test_a_picture_at_two_places_is_refused(tmp_path: Path, colours: Path) -> None:
    data = WRITERS["cirr"](tmp_path)
    (data / "copy").mkdir()
    (data / "copy" / "dev-1-0-red.png").write_bytes((data / "dev" / "dev-1-0-red.png").read_bytes())
    (data / "dev").rename(data / "moved")
    model = Model.open(colours)
    build_bundle(data, tmp_path / "bundle", model=model, query_model=model)
    with pytest.raises(FormatError, match=r"the gallery has dev-1-0-red.png twice"):
        run((data, tmp_path / "bundle"), "cirr", ["text"])


def test_a_limit_spreads_over_the_task(coloured: Folders) -> None:
    summary = run(coloured("flickr30k"), "flickr30k", ["text"], limit=3).summaries[0]
    assert [example.id for example in summary.run.examples] == ["red.jpg#0", "blue.jpg#2", "grey.jpg#4"]


def test_pictures_find_their_texts_among_all_whatever_the_limit(coloured: Folders) -> None:
    whole = run(coloured("flickr30k"), "flickr30k", ["text"]).summaries[1].run
    some = run(coloured("flickr30k"), "flickr30k", ["text"], limit=3).summaries[1].run
    assert [example.id for example in some.examples] == ["red.jpg", "blue.jpg", "grey.jpg"]
    expected = dict(zip(whole.examples, whole.rankings, strict=True))
    assert [expected[example] for example in some.examples] == list(some.rankings)


def test_blocks_do_not_change_rankings(coloured: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(coloured("flickr30k"), "flickr30k", ["text"]).summaries[0].run.rankings
    monkeypatch.setattr("pocketlens_bench.evaluate_task._BLOCK_SCORES", 1)
    assert run(coloured("flickr30k"), "flickr30k", ["text"]).summaries[0].run.rankings == whole


def test_a_query_whose_parts_cancel_out_is_a_wrong_answer_that_is_named(coloured: Folders) -> None:
    with evaluation(coloured("emojicir"), "emojicir") as ready:
        # the negative "red" takes the whole of the query "red" away at the vector level
        (example,) = ready.select("vector")
        ready.examples = (replace(example, id="red", texts=("red",)), example)
        measured = ready.measure(METHODS["text"], {"negative_strength": 1.0}, level="vector")
        assert list(measured.failed) == ["red"]
        assert measured.rankings[0].top == ()
        ready.examples = ready.examples[:1]
        with pytest.raises(BadQuery, match="answers no query"):
            ready.measure(METHODS["text"], {"negative_strength": 1.0}, level="vector")


def test_average_precision_of_a_run_is_recomputed(coloured: Folders) -> None:
    (summary,) = run(coloured("emojicir"), "emojicir", ["weicom"]).summaries
    expected = [
        average_precision([name in example.answers for name in ranking.top[:10]], min(10, len(example.answers)))
        for example, ranking in zip(summary.run.examples, summary.run.rankings, strict=True)
    ]
    assert summary.whole["mAP@10"].value == pytest.approx(100 * float(np.mean(expected)))
    assert summary.whole["mAP@10"].low <= summary.whole["mAP@10"].value <= summary.whole["mAP@10"].high
