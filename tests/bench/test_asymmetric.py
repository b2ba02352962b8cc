"""`pocketlens eval asymmetric` end to end: models that see colours, in two spaces, over pictures of one colour each.

The heavy model sees (red, green, blue, 0.2) at length 1. `shifted` sees the same, one entry further: by itself it finds
what the heavy one does, and over the heavy gallery it takes green for red. `blind` is of the heavy space and sees no
blue.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pocketlens.errors import BadQuery, EncoderMismatch, FormatError, PocketlensError
from pocketlens_bench.evaluate_cli import evaluate
from tests.bench.asymmetric_models import (
    BLUE_BLIND,
    OTHER,
    SAME,
    SHIFTED,
    write_seeing,
    write_shades,
)
from tests.bench.protocols.files import COLOURS, write_emojicir


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders; read-only."""
    folder = tmp_path_factory.mktemp("models")
    write_seeing(folder / "heavy", SAME, name="heavy", reads=True)
    write_seeing(folder / "shifted", SHIFTED, name="shifted", space=OTHER)
    write_seeing(folder / "blind", BLUE_BLIND, name="blind")
    write_seeing(folder / "twin", SAME, name="twin", reads=True)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def call(models: Path, *options: str | Path, queries: Sequence[str] = ("blind",)) -> Result:
    named = [option for name in queries for option in ("--query", models / name)]
    arguments = ["asymmetric", "--heavy", models / "heavy", *named, "--threads", "1", *options]
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def run(models: Path, *options: str | Path, queries: Sequence[str] = ("blind",)) -> Any:
    result = call(models, *options, "--json", queries=queries)
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def refused(models: Path, *options: str | Path, queries: Sequence[str] = ("blind",)) -> PocketlensError:
    error = call(models, *options, queries=queries).exception
    assert isinstance(error, PocketlensError), error
    return error


def figures(results: Any, metric: str, *, part: str = "all") -> dict[str, float]:
    """Return a figure by query, gallery."""
    return {
        f"{row['query']} {row['gallery']}": row["parts"][part]["figures"][metric]["value"] for row in results["rows"]
    }


def test_things_of_a_folder_by_hand(models: Path, tmp_path: Path) -> None:
    data = write_shades(tmp_path / "data")
    report = run(
        models, "--data", data, "--split", "all", "--light", models / "shifted", queries=["twin", "blind"]
    )  # fmt: skip
    assert [model["label"] for model in report["models"]] == ["heavy", "shifted", "twin", "blind"]
    views, same, texts = report["sets"]
    assert [each["queries"] for each in (views, same, texts)] == [36, 36, 3]
    assert [each["gallery"] for each in (views, same, texts)] == [36, 36, 36]
    found = figures(same, "R@1")
    assert found["heavy heavy"] == found["twin heavy"] == found["twin twin"] == found["shifted shifted"] == 100.0
    # blue seen without blue is (20, 20, 0, 51) at most: nearer to the constant than to a colour, and to blue than
    # to others only by chance; red and green are as before
    assert found["blind heavy"] == pytest.approx(expected_share(data, BLUE_BLIND, SAME), abs=0.01)
    assert found["shifted heavy"] == pytest.approx(expected_share(data, SHIFTED, SAME), abs=0.01)
    assert found["shifted heavy"] < 40.0
    by_name = figures(texts, "R@1")
    assert by_name == {"heavy heavy": 100.0, "twin twin": 100.0, "twin heavy": 100.0}  # the others read no text
    shares = {
        f"{row['query']} {row['gallery']}": row["parts"]["all"]["of_heavy"]["R@1"]["value"] for row in same["rows"]
    }
    assert shares == pytest.approx(found)  # of 100 %
    # a view of one colour is that colour: all its shades compete, and the picture itself is found exactly
    assert figures(views, "R@1")["heavy heavy"] == 100.0


def expected_share(data: Path, query: list[list[float]], gallery: list[list[float]]) -> float:
    """Return R@1 in per cent of the same thing in a folder of pictures of one colour, in float64."""
    labels = [path.parent.name for path in sorted(data.rglob("*.png"))]
    shades = [[max(0, value - 3 * i) / 255 for value in COLOURS[label]] for i, label in _numbered(labels)]
    colours = np.array([[*shade, 1.0] for shade in shades])
    seen, rows = colours @ np.array(query), colours @ np.array(gallery)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = seen @ rows.T
    np.fill_diagonal(scores, -np.inf)
    best = scores.argmax(axis=1)
    return 100 * float(np.mean([labels[row] == labels[place] for row, place in enumerate(best)]))


def _numbered(labels: Sequence[str]) -> list[tuple[int, str]]:
    return [(labels[:place].count(label), label) for place, label in enumerate(labels)]


def test_emojicir_same_thing_names_and_composed_queries(models: Path, tmp_path: Path) -> None:
    data = write_emojicir(tmp_path / "emojicir")  # both vendors draw the same colours, blue is not of the train split
    _redraw(data)
    report = run(
        models, "--emojicir", data, "--split", "train", "--held-style", "b", "--methods", "sum,auto",
        queries=["blind", "twin"],
    )  # fmt: skip
    assert (report["split"], report["held_styles"]) == ("train", ["b"])
    same, texts = report["sets"]
    assert same["queries"] == 10  # five colours by two vendors
    assert sorted(same["rows"][0]["parts"]) == [
        "all", "by a", "by b", "held-out styles", "other styles", "without a skin tone",
    ]  # fmt: skip
    assert same["rows"][0]["parts"]["held-out styles"]["queries"] == 5
    assert figures(same, "R@1")["twin heavy"] == figures(same, "R@1")["heavy heavy"] == 100.0
    assert figures(same, "R@1")["blind heavy"] < 100.0  # white and yellow look the same
    assert [row["query"] for row in texts["rows"]] == ["heavy", "twin", "twin"]
    assert texts["rows"][0]["parts"]["all"]["queries"] == 5
    composed = {(row["query"], row["method"]): row for row in report["composed"]}
    assert sorted(composed) == [(label, name) for label in ("blind", "heavy", "twin") for name in ("auto", "sum")]
    assert composed["twin", "sum"]["parts"] == composed["heavy", "sum"]["parts"]
    assert composed["twin", "sum"]["parts"]["all"]["of_heavy"]["mAP@10"]["value"] == 100.0
    assert composed["heavy", "auto"]["used"] == "weicom"  # nothing was measured, and there are no names
    assert all(row["lacks"] == [] for row in composed.values())
    assert report["composed"][0]["parts"]["all"]["queries"] == 1  # one query of the train split, its target seen
    assert "seen targets" in report["composed"][0]["parts"]


def test_composed_queries_are_seen_by_the_query_model_and_searched_in_the_heavy_gallery(
    models: Path, tmp_path: Path
) -> None:
    data = write_emojicir(tmp_path / "emojicir")
    _redraw(data)
    report = run(models, "--emojicir", data, "--split", "all", "--methods", "image")  # composed: the test split
    heavy, blind = report["composed"]
    assert (heavy["query"], blind["query"]) == ("heavy", "blind")
    for row, matrix in ((heavy, SAME), (blind, BLUE_BLIND)):
        found = row["parts"]["all"]["figures"]["mAP@10"]["value"]
        assert found == pytest.approx(100 * _mean_precision(data, matrix), abs=0.01)
    share = 100 * _mean_precision(data, BLUE_BLIND) / _mean_precision(data, SAME)
    assert abs(share - 100) > 1  # or it would not matter whose the query is
    assert blind["parts"]["all"]["of_heavy"]["mAP@10"]["value"] == pytest.approx(share, abs=0.01)
    assert heavy["parts"]["unseen targets"]["queries"] == 1


def _mean_precision(data: Path, matrix: list[list[float]]) -> float:
    """Return mAP@10 of the test split's plain queries by their pictures alone, in float64."""
    paths = sorted((data / "pictures").rglob("*.png"))
    names = [path.relative_to(data / "pictures").as_posix() for path in paths]
    colours = np.array([[*(np.asarray(Image.open(path))[0, 0] / 255), 1.0] for path in paths])
    rows = colours @ np.array(SAME)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    asked = [("a/red.png", {"a/green.png", "b/green.png"}), ("b/red.png", {"b/blue.png"}),
             ("a/grey.png", {"a/white.png", "b/white.png"})]  # fmt: skip
    total = 0.0
    for reference, answers in asked:
        scores = rows @ (colours[names.index(reference)] @ np.array(matrix))
        hits = [names[place] in answers for place in np.argsort(-scores)[:10]]
        total += sum(sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit) / len(answers)
    return total / len(asked)


def _redraw(data: Path) -> None:
    """Make vendor b's pictures other files of nearly the same colours: copies would be left out of the gallery."""
    for path in (data / "pictures" / "b").glob("*.png"):
        with Image.open(path) as image:
            Image.eval(image, lambda value: min(255, value + 2)).save(path)


def test_methods_that_a_model_lacks_are_named_not_measured(models: Path, tmp_path: Path) -> None:
    data = write_emojicir(tmp_path / "emojicir")
    _redraw(data)
    options = ("--emojicir", data, "--split", "all", "--methods", "lincir")
    report = run(models, *options)
    assert [(row["query"], row["used"], row["parts"]) for row in report["composed"]] == [
        ("heavy", None, {}),
        ("blind", None, {}),
    ]
    assert "inversion/lincir" in report["composed"][0]["lacks"][0]
    printed = call(models, *options).stdout
    assert "lincir with blind: needs an inversion network" in printed


def test_table_plot_and_file_say_the_same(models: Path, tmp_path: Path) -> None:
    data, out, plot = write_shades(tmp_path / "data"), tmp_path / "r.json", tmp_path / "r.svg"
    options = ("--data", data, "--split", "all", "--light", models / "shifted", "--out", out, "--plot", plot)
    printed = call(models, *options)
    assert printed.exception is None, printed.exception
    report = json.loads(out.read_text())
    assert plot.read_text().startswith("<?xml")
    assert "light-heavy raw" in plot.read_text()
    lines = printed.stdout.splitlines()
    (row,) = [line for line in lines if line.startswith("shifted") and "control" in line][1:]
    figure = report["sets"][1]["rows"][3]["parts"]["all"]["figures"]["R@10"]
    assert report["sets"][1]["rows"][3]["kind"] == "light-heavy raw"
    assert row.split()[3:7] == [f"{figure['value']:.2f}", f"{figure['low']:.1f}", "to", f"{figure['high']:.1f}"]
    assert f"by chance R@10 would be {report['sets'][1]['chance']:.2f}" in printed.stdout
    assert str(tmp_path) not in out.read_text()
    assert report["latency_threads"] == 1
    for model in report["models"]:
        assert model["latency_ms_p50"] > 0
        folder = models / model["label"]
        assert model["image_bytes"] == (folder / "image.onnx").stat().st_size
    assert report["models"][0]["latency_of_heavy"] == 1.0


def test_figures_are_the_same_again_and_of_changed_pictures_anew(models: Path, tmp_path: Path, cache: Path) -> None:
    data = write_shades(tmp_path / "data", count=6)
    first = run(models, "--data", data, "--split", "all")
    assert list(cache.rglob("*.npz"))
    second = run(models, "--data", data, "--split", "all")
    assert second["sets"] == first["sets"]
    red, green = data / "red" / "00.png", data / "green" / "00.png"
    content = red.read_bytes()
    red.write_bytes(green.read_bytes())
    green.write_bytes(content)  # each now lies among the other colour
    changed = run(models, "--data", data, "--split", "all")
    assert changed["sets"][1]["queries_sha256"] == first["sets"][1]["queries_sha256"]
    assert figures(changed["sets"][1], "R@1")["heavy heavy"] < figures(first["sets"][1], "R@1")["heavy heavy"]


def test_a_limit_asks_fewer(models: Path, tmp_path: Path) -> None:
    data = write_shades(tmp_path / "data")
    report = run(models, "--data", data, "--split", "all", "--limit", "5")
    assert [each["queries"] for each in report["sets"]] == [5, 5, 3]
    assert report["sets"][0]["gallery"] == 36


def test_files_that_are_no_pictures_are_counted(models: Path, pictures: Path) -> None:
    report = run(models, "--data", pictures, "--split", "all")
    assert report["skipped"] == {"not a picture": 1, "truncated": 1}
    assert report["sets"][0]["gallery"] == 4  # the copy of red is left out


def test_bad_input_is_named(models: Path, tmp_path: Path) -> None:
    data = write_shades(tmp_path / "data", count=2)
    error = refused(models, "--data", data, queries=["shifted"])
    assert isinstance(error, EncoderMismatch)
    assert OTHER.id in str(error) and "colours@0000" in str(error)
    assert isinstance(refused(models), BadQuery)
    (tmp_path / "empty").mkdir()
    error = refused(models, "--data", tmp_path / "empty")
    assert isinstance(error, FormatError) and "no picture could be read" in str(error)
    emojicir = write_emojicir(tmp_path / "emojicir")
    _redraw(emojicir)
    error = refused(models, "--emojicir", emojicir)  # the default: nothing is of the encoder's test split
    assert isinstance(error, FormatError) and "no concept of the split test" in str(error)
    assert "expected one of a, b" in str(refused(models, "--emojicir", emojicir, "--held-style", "google"))
    assert "--methods has 'slurp'" in str(refused(models, "--emojicir", emojicir, "--methods", "sum,slurp"))


def test_help_lists_the_command_and_what_it_asks() -> None:
    runner = CliRunner()
    assert "asymmetric" in runner.invoke(evaluate, ["--help"]).output
    help = runner.invoke(evaluate, ["asymmetric", "--help"]).output
    assert "--emojicir DIR" in help and "Example:" in help
    assert max(map(len, help.splitlines())) <= 110
