from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from pocketlens.graph import open_exactly
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.inputs import Side
from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.proof import Pair, TowerName, measure, misses
from pocketlens_quantize.target import Target
from tests.quantize import towers
from tests.quantize.towers import Floats, cosine, run_all

TARGET = Target("x86-64-vnni", "uint8", reduce_range=False, preset="avx512_vnni", timed_here=False)
N = 40
LABELS = [[row % N] if row % 2 else [] for row in range(N)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[TowerName, Pair]:
    """Files of the towers; the smaller text tower has 4-bit weights, the image tower is static int8; read-only."""
    text = Tower("text", towers.text_tower(), towers.text_feeds(16), TARGET)
    image = Tower("image", towers.image_tower(), towers.picture_feeds(16), TARGET)
    folder = tmp_path_factory.mktemp("towers")

    def saved(name: str, model: onnx.ModelProto) -> Path:
        onnx.save(model, str(folder / name))
        return folder / name

    return {
        "text": Pair(saved("text.onnx", text.model), saved("text4.onnx", text.build(Plan("weights4")))),
        "image": Pair(saved("image.onnx", image.model), saved("image8.onnx", image.build(Plan("static", "minmax")))),
    }


@pytest.fixture(scope="module")
def side(pairs: dict[TowerName, Pair]) -> Side:
    """Texts and pictures; every second text is said to describe the picture of its number."""
    texts, pictures = towers.text_feeds(N, seed=11), towers.picture_feeds(N, seed=12)
    return Side(
        texts=texts,
        text_batches=towers.text_batches(texts[:16]),
        pictures=pictures,
        picture_batches=towers.picture_batches(pictures[:16]),
        float_texts=run_all(onnx.load(pairs["text"].float32), texts),
        float_pictures=run_all(onnx.load(pairs["image"].float32), pictures),
        labels=LABELS,
        sha256="0" * 64,
    )


@pytest.fixture(scope="module")
def smaller(pairs: dict[TowerName, Pair], side: Side) -> dict[str, Floats]:
    return {
        "text": run_all(onnx.load(pairs["text"].smaller), side.texts),
        "image": run_all(onnx.load(pairs["image"].smaller), side.pictures),
    }


@pytest.fixture(scope="module")
def quality(pairs: dict[TowerName, Pair], side: Side) -> dict[str, float]:
    return measure(pairs, side, timed=False)


def tops(queries: Floats, gallery: Floats, k: int, *, own: bool) -> list[set[int]]:
    """Return the k nearest rows of each query by a plain loop; `own`: the query's own row does not count."""
    found = []
    for number, query in enumerate(queries):
        rows = [row for row in range(len(gallery)) if not (own and row == number)]
        found.append(set(sorted(rows, key=lambda row: -float(query @ gallery[row]))[:k]))
    return found


def shared(first: list[set[int]], second: list[set[int]]) -> float:
    return sum(len(a & b) / len(a) for a, b in zip(first, second, strict=True)) / len(first)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_sizes_and_cosines_are_those_of_numpy(
    tower: TowerName, quality: dict[str, float], pairs: dict[TowerName, Pair], side: Side, smaller: dict[str, Floats]
) -> None:
    near = np.sort(cosine(smaller[tower], side.float_texts if tower == "text" else side.float_pictures))
    place = 0.01 * (N - 1)
    assert quality[f"{tower}_cosine_mean"] == pytest.approx(near.mean(), abs=1e-5)
    assert quality[f"{tower}_cosine_p1"] == pytest.approx(near[0] + place * (near[1] - near[0]), abs=1e-5)
    assert quality[f"{tower}_cosine_min"] == pytest.approx(near[0], abs=1e-5)
    assert quality[f"{tower}_bytes"] == len(pairs[tower].smaller.read_bytes())
    assert quality[f"{tower}_float_bytes"] == len(pairs[tower].float32.read_bytes())
    batches = side.text_batches if tower == "text" else side.picture_batches
    batched = run_all(onnx.load(pairs[tower].smaller), batches)
    expected = cosine(batched, smaller[tower][:16]).min()
    assert quality[f"{tower}_cosine_alone_and_in_batch_min"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tower", ["text", "image"])
@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("gallery", ["int8", "float"])
def test_agreement_is_with_the_answers_of_float_on_float(
    tower: TowerName, k: int, gallery: str, quality: dict[str, float], side: Side, smaller: dict[str, Floats]
) -> None:
    exact = side.float_texts if tower == "text" else side.float_pictures
    rows = smaller["image"] if gallery == "int8" else side.float_pictures
    own = tower == "image"
    expected = shared(tops(exact, side.float_pictures, k, own=own), tops(smaller[tower], rows, k, own=own))
    assert quality[f"{tower}_agreement_at_{k}_int8_on_{gallery}"] == pytest.approx(expected, abs=2e-6)
    assert expected < 1  # so that the cases can be told apart


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("query", ["float", "int8"])
@pytest.mark.parametrize("gallery", ["float", "int8"])
def test_recall_is_of_labelled_texts(
    k: int, query: str, gallery: str, quality: dict[str, float], side: Side, smaller: dict[str, Floats]
) -> None:
    queries = side.float_texts if query == "float" else smaller["text"]
    rows = side.float_pictures if gallery == "float" else smaller["image"]
    found = tops(queries, rows, k, own=False)
    hits = [bool(found[number] & set(labels)) for number, labels in enumerate(LABELS) if labels]
    assert quality[f"text_recall_at_{k}_{query}_on_{gallery}"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)
    assert quality["text_labelled"] == N / 2


def test_the_fidelity_of_features_is_that_of_numpy(tmp_path: Path, side: Side) -> None:
    tower = Tower("image", towers.image_tower(features=True), towers.picture_feeds(16), TARGET)
    pair = Pair(tmp_path / "image.onnx", tmp_path / "image8.onnx")
    onnx.save(tower.model, str(pair.float32))
    onnx.save(tower.build(Plan("static", "minmax")), str(pair.smaller))
    found = measure({"image": pair}, dataclasses.replace(side, texts=[], labels=[]), timed=False)
    maps = []
    for path in (pair.float32, pair.smaller):
        session = open_exactly(str(path), ort.SessionOptions())
        maps.append([session.run(["features"], feed)[0].ravel().astype(np.float64) for feed in side.pictures])
    near = [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in zip(*maps, strict=True)]
    assert found["image_features_cosine_mean"] == pytest.approx(np.mean(near), abs=2e-6)
    assert 0.9 < np.mean(near) < 0.99999


def test_towers_without_features_have_no_figure_of_them(quality: dict[str, float]) -> None:
    assert not [name for name in quality if "features" in name]


def test_untimed_towers_have_no_latency(quality: dict[str, float]) -> None:
    assert not [name for name in quality if "latency" in name]


def test_timed_towers_have_one_each(pairs: dict[TowerName, Pair], side: Side) -> None:
    found = measure({"image": pairs["image"]}, dataclasses.replace(side, labels=[]), timed=True)
    names = {name for name in found if "latency" in name}
    figures = {"float_latency_ms_p50", "float_latency_ms_p95", "latency_ms_p50", "latency_ms_p95", "latency_ratio"}
    assert names == {f"image_{figure}" for figure in figures}
    assert 0 < found["image_latency_ms_p50"] <= found["image_latency_ms_p95"]
    ratio = found["image_latency_ms_p50"] / found["image_float_latency_ms_p50"]
    assert ratio / 3 < found["image_latency_ratio"] < ratio * 3  # a median of ratios, on a machine that others use too


def test_texts_alone_are_their_own_gallery(
    pairs: dict[TowerName, Pair], side: Side, smaller: dict[str, Floats]
) -> None:
    none = np.zeros((0, towers.DIM), np.float32)
    alone = dataclasses.replace(side, pictures=[], picture_batches=[], float_pictures=none, labels=[])
    found = measure({"text": pairs["text"]}, alone, timed=False)
    exact = tops(side.float_texts, side.float_texts, 10, own=True)
    on_float = shared(exact, tops(smaller["text"], side.float_texts, 10, own=True))
    on_int8 = shared(exact, tops(smaller["text"], smaller["text"], 10, own=True))
    assert found["text_agreement_at_10_int8_on_float"] == pytest.approx(on_float, abs=2e-6)
    assert found["text_agreement_at_10_int8_on_int8"] == pytest.approx(on_int8, abs=2e-6)
    assert not [name for name in found if name.startswith("image") or "recall" in name]


def figures(**changed: float) -> dict[str, float]:
    recalls = {"float_on_float": 0.5, "int8_on_float": 0.5, "float_on_int8": 0.5, "int8_on_int8": 0.5}
    reached = {f"text_recall_at_10_{case}": value for case, value in recalls.items()}
    for tower in ("text", "image"):
        reached |= {f"{tower}_cosine_mean": 1.0, f"{tower}_agreement_at_10_int8_on_float": 1.0}
        reached |= {f"{tower}_agreement_at_10_int8_on_int8": 1.0, f"{tower}_cosine_alone_and_in_batch_min": 1.0}
    return reached | changed


GATE = Gate(0.99, 0.95, 1.0)


@pytest.mark.parametrize(
    ("changed", "text", "image"),
    [
        ({}, [], []),
        ({"text_recall_at_10_int8_on_float": 0.48}, ["labelled recall@10 falls by 2.00 points, 1.00 too many"], []),
        ({"text_recall_at_10_float_on_int8": 0.48}, [], ["labelled recall@10 falls by 2.00 points, 1.00 too many"]),
        ({"text_recall_at_10_int8_on_float": 0.9}, [], []),
        ({"text_cosine_mean": 0.9}, ["mean cosine 0.9000 misses 0.99 by 0.0900"], []),
        ({"image_agreement_at_10_int8_on_float": 0.9}, [], ["agreement@10 0.9000 misses 0.95 by 0.0500"]),
    ],
)
def test_a_tower_answers_for_its_own_recall(changed: dict[str, float], text: list[str], image: list[str]) -> None:
    quality = figures(**changed)
    assert misses("text", GATE, quality, is_faster=True) == text
    assert misses("image", GATE, quality, is_faster=True) == image


def test_without_labels_no_recall_is_missed() -> None:
    quality = {name: value for name, value in figures().items() if "recall" not in name}
    assert [misses(tower, GATE, quality, is_faster=True) for tower in ("text", "image")] == [[], []]


def test_a_tower_that_is_slower_than_float_misses_unless_it_is_storage_alone() -> None:
    slow = figures(text_latency_ratio=1.25, image_latency_ratio=1.0)
    assert misses("text", GATE, slow, is_faster=True) == ["latency is 1.25 of float32's"]
    assert misses("text", GATE, slow, is_faster=False) == [] == misses("image", GATE, slow, is_faster=True)


def test_a_proof_with_nan_misses() -> None:
    quality = figures(text_cosine_mean=float("nan"))
    assert misses("text", GATE, quality, is_faster=False) == ["mean cosine nan misses 0.99 by nan"]
