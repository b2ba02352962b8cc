from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError, Refused
from pocketlens.files import sha256_of
from pocketlens.inspect import verify
from pocketlens.model import Model, ModelManifest
from pocketlens_quantize.folder import Request, quantize_model
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.plan import Method
from pocketlens_quantize.queries import sample_queries
from pocketlens_quantize.target import find_target
from pocketlens_quantize.tolerance import Tolerance, tolerance_of
from tests.folders import add_concepts, add_inversion, edit_json, sign
from tests.quantize import towers
from tests.quantize.towers import cosine

LOOSE = {"text": Gate(0.9, 0.5, 100), "image": Gate(0.9, 0.5, 100)}


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 model folder; read-only."""
    return towers.write_model(tmp_path_factory.mktemp("models") / "towers", image=towers.image_tower(features=True))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 pictures, one file that is none and a copy of a picture; read-only."""
    folder = towers.write_pictures(tmp_path_factory.mktemp("pictures"), 128)
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    shutil.copy(folder / "000.png", folder / "copy.png")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 queries, each of which is said to describe a picture."""
    file = tmp_path_factory.mktemp("texts") / "queries.txt"
    lines = [f"{query}\t{number % 128:03}.png" for number, query in enumerate(sample_queries(130))]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of trials that all tests of this module share, so that one search suffices."""
    return tmp_path_factory.mktemp("memory")


def request(source: Path, pictures: Path | None, texts: Path | None, memory: Path, target: str = "arm64") -> Request:
    return Request(
        Model.open(source), find_target(target), calibration=pictures, measuring=None, texts=texts, gates=LOOSE,
        minutes=10, ort=False, memory=memory,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(
    source: Path, pictures: Path, texts: Path, memory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelManifest, list[str]]:
    """A folder for arm64, its manifest and what was reported on the way; read-only."""
    out, lines = tmp_path_factory.mktemp("made") / "out", list[str]()
    return out, quantize_model(request(source, pictures, texts, memory), out, lines.append), lines


Made = tuple[Path, ModelManifest, list[str]]


def test_a_whole_folder_is_written_and_verifies(made: Made) -> None:
    out, manifest, _ = made
    assert sorted(path.name for path in out.iterdir()) == [
        "golden.npz", "image.onnx", "model.json", "quantization.md", "quantization.svg", "text.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert len(verify(out)) == 3
    assert Model.open(out).manifest == manifest
    assert set(manifest.files) == {path.name for path in out.iterdir()} - {"model.json"}


def test_networks_and_names_are_copied_with_their_reports(
    source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(source, tmp_path / "own"))
    add_inversion(own, "lincir")
    add_concepts(own, ["a cat", "a dog"], np.eye(2, towers.DIM, dtype=np.float32))
    edit_json(own / "model.json", quality={"composed_lincir_map_at_10": 0.25})
    made = quantize_model(request(own, pictures, texts, memory), tmp_path / "out", silent)
    before = Model.open(own).manifest
    assert (made.inversion, made.concepts) == (before.inversion, before.concepts)
    assert made.quality["float_composed_lincir_map_at_10"] == 0.25
    for name in ("inversion/lincir.onnx", "inversion/lincir.md", "inversion/lincir.svg", "concepts.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (own / name).read_bytes()
        assert made.files[name] == before.files[name]


def test_the_record_says_what_it_was_made_for_and_with(made: Made, source: Path) -> None:
    _, manifest, _ = made
    before, record = Model.open(source).manifest, manifest.quantization
    assert record is not None
    assert record.target == "arm64"
    assert record.gate == {f"{t}_{what}": value for t in ("text", "image") for what, value in
                           (("cosine", 0.9), ("agreement", 0.5), ("recall", 100))}  # fmt: skip
    assert len({record.calibration_sha256, record.measuring_sha256}) == 2
    assert all(len(digest) == 64 for digest in (record.calibration_sha256, record.measuring_sha256))
    assert manifest.text is not None and manifest.image is not None
    assert manifest.text.precision != "float32" and manifest.image.precision.startswith("static int8")
    same = ("name", "licence", "source", "space")
    assert [getattr(manifest, name) for name in same] == [getattr(before, name) for name in same]
    assert manifest.quality["float_parity_text_min_cosine"] == 0.999  # figures of the export, which are of float32
    assert "parity_text_min_cosine" not in manifest.quality
    assert manifest.made_with.items() >= {"onnx": onnx.__version__}.items()


def test_a_target_that_cannot_be_timed_has_no_latency(made: Made) -> None:
    out, manifest, _ = made
    assert manifest.quantization is not None and manifest.quantization.timed_on is None
    assert not [name for name in manifest.quality if "latency" in name]
    assert "Latency is unmeasured" in (out / "quantization.md").read_text()


def test_the_towers_are_smaller_and_near(made: Made, source: Path) -> None:
    out, manifest, _ = made
    before, after = Model.open(source), Model.open(out)
    queries = sample_queries(20, seed=5)
    near = cosine(TextEncoder(after).encode(queries), TextEncoder(before).encode(queries))
    assert 0.9 < near.mean() < 0.99999
    pixels = towers.pictures(20, seed=33)
    near = cosine(ImageEncoder(after).encode_pixels(pixels), ImageEncoder(before).encode_pixels(pixels))
    assert 0.9 < near.mean() < 0.99999
    for tower, most in (("text", 0.4), ("image", 0.65)):
        sizes = [(folder / f"{tower}.onnx").stat().st_size for folder in (out, source)]
        assert sizes[0] < most * sizes[1]
        assert manifest.quality[f"{tower}_bytes"] == sizes[0]
        assert manifest.quality[f"{tower}_float_bytes"] == sizes[1]


def test_the_proof_has_every_case(made: Made) -> None:
    _, manifest, _ = made
    cases = {f"{a}_on_{b}" for a in ("float", "int8") for b in ("float", "int8")}
    assert {f"text_recall_at_{k}_{case}" for k in (1, 5, 10) for case in cases} <= set(manifest.quality)
    assert {f"{tower}_agreement_at_{k}_int8_on_{gallery}" for tower in ("text", "image") for k in (1, 10)
            for gallery in ("int8", "float")} <= set(manifest.quality)  # fmt: skip
    assert manifest.quality["text_cosine_alone_and_in_batch_min"] >= 0.9999


def test_features_stay_and_their_fidelity_is_in_the_proof(made: Made, source: Path) -> None:
    out, manifest, _ = made
    assert manifest.image is not None and manifest.image.features == towers.FEATURES
    assert 0.9 < manifest.quality["image_features_cosine_mean"] < 1
    assert "| cosine of features to float32's: mean | - | 0.9" in (out / "quantization.md").read_text()
    pixels = towers.pictures(3, seed=33)
    before, after = (ImageEncoder(Model.open(folder)).encode_features(pixels)[1] for folder in (source, out))
    assert cosine(before.reshape(3, -1), after.reshape(3, -1)).min() > 0.9


def test_golden_values_stay_those_of_float_with_bars_from_the_table(made: Made, source: Path) -> None:
    out, _, _ = made
    with np.load(source / "golden.npz") as before, np.load(out / "golden.npz") as after:
        bars = {f"{tower}_{bar}" for tower in ("text", "image") for bar in ("min_cosine", "max_abs")}
        assert set(before.files) == set(after.files)
        for name in set(before.files) - bars:
            np.testing.assert_array_equal(after[name], before[name])
        bar = tolerance_of("static")
        assert float(after["image_min_cosine"]) == pytest.approx(bar.min_cosine)
        assert float(after["image_max_abs"]) == pytest.approx(bar.max_abs)


def test_what_cannot_be_read_is_reported(made: Made) -> None:
    assert [line for line in made[2] if "broken.png" in line]


def test_the_same_request_again_makes_the_same_bytes_from_memory(
    made: Made, source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in memory.iterdir()}
    quantize_model(request(source, pictures, texts, memory), tmp_path / "out", silent)
    assert {path.name: path.read_bytes() for path in memory.iterdir()} == before  # nothing was tried anew
    for path in made[0].iterdir():
        if path.name not in ("golden.npz", "model.json"):  # an archive holds the time; the manifest, its hash
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_folder_that_exists_is_not_overwritten(
    source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FormatError):
        quantize_model(request(source, pictures, texts, memory), tmp_path / "out", silent)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def refused(made_of: Request, out: Path) -> str:
    """Return the one line with which a request is refused, after a look that nothing was written."""
    with pytest.raises((FormatError, Refused)) as caught:
        quantize_model(made_of, out, silent)
    assert list(out.parent.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_gate_that_nothing_reaches_writes_nothing_and_says_what_was_nearest(
    made: Made, source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    gates = {"text": Gate(2.0, 1.0, 0), "image": LOOSE["image"]}
    made_of = dataclasses.replace(request(source, pictures, texts, memory), gates=gates)
    message = refused(made_of, tmp_path / "out")
    assert f"{source}: nothing reaches the text tower's gate. The nearest, float16 storage: cosine 1.0000" in message
    assert "mean cosine 1.0000 misses 2 by 1.0000" in message and "minutes" not in message


def test_a_proof_that_misses_writes_nothing(
    made: Made, source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    gates = {"text": LOOSE["text"], "image": Gate(0.9, 0.5, -200)}  # no recall may fall, and must rise by two
    made_of = dataclasses.replace(request(source, pictures, texts, memory), gates=gates)
    message = refused(made_of, tmp_path / "out")
    assert "on inputs kept aside the image tower misses its gate" in message
    assert "labelled recall@10 falls by" in message


def test_towers_that_miss_their_golden_values_are_refused(
    made: Made, source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketlens_quantize.folder.tolerance_of", lambda method: Tolerance(1.0, 0.0, "none"))
    message = refused(request(source, pictures, texts, memory), tmp_path / "out")
    assert message.startswith(f"{source}: the smaller folder misses its golden values: {tmp_path / 'out'}")


def test_files_in_sub_folders_are_kept(
    source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("deep") / "towers"
    shutil.copytree(source, folder)
    (folder / "more").mkdir()
    (folder / "more" / "read.me").write_text("kept")
    files = json.loads((folder / "model.json").read_text())["files"]
    files["more/read.me"] = {"sha256": sha256_of(folder / "more/read.me"), "size_bytes": 4}
    edit_json(folder / "model.json", files=files)
    sign(folder / "model.json")
    manifest = quantize_model(request(folder, pictures, texts, memory), tmp_path / "out", silent)
    assert (tmp_path / "out/more/read.me").read_text() == "kept"
    assert "more/read.me" in manifest.files


def test_too_little_time_is_said(
    made: Made, source: Path, pictures: Path, texts: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made_of = request(source, pictures, texts, tmp_path_factory.mktemp("fresh"))
    message = refused(dataclasses.replace(made_of, minutes=-1.0), tmp_path / "out")
    assert message == f"{source}: -1 minutes did not suffice to try any plan, give --minutes"


def test_a_quantized_folder_is_not_quantized_again(
    made: Made, pictures: Path, texts: Path, memory: Path, tmp_path: Path
) -> None:
    message = refused(request(made[0], pictures, texts, memory), tmp_path / "out")
    assert message == f"{made[0]} is already quantized (for arm64); start from the float32 folder"


def test_an_image_tower_needs_pictures(source: Path, texts: Path, memory: Path, tmp_path: Path) -> None:
    message = refused(request(source, None, texts, memory), tmp_path / "out")
    assert f"{source}: no calibration pictures" in message and "--calibration" in message


def test_too_few_pictures_are_counted(
    source: Path, texts: Path, memory: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    few = towers.write_pictures(tmp_path_factory.mktemp("few"), 100)
    message = refused(request(source, few, texts, memory), tmp_path / "out")
    assert f"{few}: found 100 different readable pictures (0 unreadable), expected at least 128" in message


def test_pictures_in_both_folders_are_refused(
    source: Path, pictures: Path, texts: Path, memory: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = towers.write_pictures(tmp_path_factory.mktemp("other"), 70, seed=44)
    shutil.copy(pictures / "003.png", other / "elsewhere.png")
    made_of = dataclasses.replace(request(source, pictures, texts, memory), measuring=other)
    message = refused(made_of, tmp_path / "out")
    assert "calibration and measuring pictures must be disjoint: found 1" in message and "elsewhere.png" in message


def test_a_text_tower_without_a_tokenizer_stays_as_it_is(
    pictures: Path, memory: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = towers.write_model(tmp_path_factory.mktemp("mute") / "towers", tokenizer=False)
    manifest = quantize_model(request(folder, pictures, None, memory), tmp_path / "out", silent)
    assert sha256_of(tmp_path / "out" / "text.onnx") == sha256_of(folder / "text.onnx")
    assert manifest.text is not None and manifest.text.precision == "float32"
    assert not [name for name in manifest.quality if name.startswith("text_")]
    assert manifest.quality["image_bytes"] < manifest.quality["image_float_bytes"]


def test_a_text_tower_alone_needs_no_pictures(
    source: Path, texts: Path, memory: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("alone") / "text"
    shutil.copytree(source, folder)
    (folder / "image.onnx").unlink()
    files = json.loads((folder / "model.json").read_text())["files"]
    del files["image.onnx"]
    edit_json(folder / "model.json", image=None, files=files)
    sign(folder / "model.json")
    manifest = quantize_model(request(folder, None, texts, memory), tmp_path / "out", silent)
    assert manifest.image is None and not (tmp_path / "out" / "image.onnx").exists()
    assert manifest.quality["text_agreement_at_10_int8_on_float"] >= 0.5
    assert not [name for name in manifest.quality if "recall" in name]  # which would be of pictures
    assert manifest.quantization is not None  # and what was not measured was not demanded
    assert manifest.quantization.gate == {"text_cosine": 0.9, "text_agreement": 0.5}
    verify(tmp_path / "out")


@pytest.mark.parametrize("method", ["float16", "int8-storage", "dynamic", "static", "weights8", "weights4", "optimum"])
def test_every_method_has_bars_with_a_reason(method: Method) -> None:
    bar = tolerance_of(method)
    assert 0 < bar.min_cosine < 1 and 0 < bar.max_abs < 1 and len(bar.reason) > 20
