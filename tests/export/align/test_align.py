"""`pocketlens fit align` from end to end, on two open_clip architectures with seeded weights, 512 and 768 wide."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError, MissingPart
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from pocketlens.model import Model
from pocketlens_export.align import residual
from pocketlens_export.align.folder import Request, align_models
from pocketlens_export.architecture import local_architecture
from pocketlens_export.clip import Weights
from pocketlens_export.fit.cli import fit
from pocketlens_export.folder import Request as ExportRequest
from pocketlens_export.folder import export_model
from pocketlens_export.gallery.build import build_bundle, pack_bundle
from pocketlens_export.samples import sample_pictures
from tests.export.tiny import clip_config, write_config
from tests.folders import edit_json, files_below, sign

Align = Callable[..., Result]
COUNT = 160
FIGURES = {
    f"asymmetric_{who}_recall_at_{k}" for who in ("light_light", "heavy_heavy", "light_heavy") for k in (1, 10)
} | {"asymmetric_mean_cosine"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The light and the heavy model; read-only. They differ in everything, preprocessing and widths included."""
    place = tmp_path_factory.mktemp("models")
    light, heavy = clip_config(), clip_config()
    light["model_cfg"]["embed_dim"], heavy["model_cfg"]["embed_dim"] = 512, 768
    heavy["model_cfg"]["vision_cfg"] = {
        "image_size": 48, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16,
    }  # fmt: skip
    heavy["preprocess_cfg"] = {
        "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash",
    }  # fmt: skip
    for seed, (name, config) in enumerate({"light": light, "heavy": heavy}.items()):
        architecture = local_architecture(write_config(place / f"{name}.json", config))
        request = ExportRequest(architecture, Weights(seed=seed), name, f"licence of {name}", None, None)
        export_model(request, place / name, lambda line: None)
    return place / "light", place / "heavy"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated pictures; read-only."""
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(sample_pictures(COUNT)):
        picture.resize((64, 48)).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 120 texts; read-only."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    words = [f"{a} {b} {c}" for a in ("red", "old", "my", "a") for b in ("dog", "cat", "car", "boat", "cup", "tree")
             for c in ("at night", "in rain", "here", "there", "on sand")]  # fmt: skip
    path.write_text("\n".join([*words, words[0]]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(models: tuple[Path, Path], photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Align:
    """A function: more arguments to the command's result; later options override earlier ones."""
    monkeypatch.setenv("POCKETLENS_CACHE", str(cache))
    monkeypatch.setattr(residual, "_ROUNDS", 2)
    monkeypatch.setattr(residual, "_ROUND", 5)

    def _run(*more: str, pictures: Path = photos) -> Result:
        call = ["align", "--light", str(models[0]), "--heavy", str(models[1]), "--pictures", str(pictures)]
        call += ["--map", "ridge", "--threads", "1", "--out", str(tmp_path / "out")]
        return CliRunner().invoke(fit, [*call, *more])

    return _run


def succeed(result: Result) -> Any:
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


def fail(result: Result, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        succeed(result)


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "residual-mlp"])
def test_every_map_makes_a_query_model(
    run: Align, models: tuple[Path, Path], photos: Path, tmp_path: Path, kind: str
) -> None:
    shown = succeed(run("--map", kind, "--json"))
    made, light, heavy = (Model.open(path) for path in (tmp_path / "out", *models))
    manifest = made.manifest
    assert (manifest.name, manifest.space) == ("light-in-heavy", heavy.manifest.space)
    assert manifest.licence == "licence of light; the map was fitted to heavy: licence of heavy"
    assert manifest.text is None and manifest.image is not None
    assert manifest.image == light.manifest.image
    assert set(manifest.quality) == FIGURES
    assert all(0 <= value <= 1 for value in manifest.quality.values())
    assert manifest.quality["asymmetric_light_heavy_recall_at_10"] > 0.7  # of 16 or so
    assert files_below(tmp_path / "out") == ["align.md", "align.svg", "golden.npz", "image.onnx", "model.json"]
    assert shown["quality"] == manifest.quality and shown["map"] == kind
    assert shown["counts"]["pictures"]["training"] + shown["counts"]["pictures"]["validation"] > 130
    assert verify(tmp_path / "out")
    near = (ImageEncoder(made).encode([photos / "003.png"]) @ ImageEncoder(heavy).encode([photos / "003.png"]).T).item()
    assert near > 0.9


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "residual-mlp"])
def test_graphs_compute_the_map_of_what_the_light_model_gives(
    models: tuple[Path, Path], photos: Path, texts: Path, cache: Path, tmp_path: Path, kind: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(residual, "_ROUNDS", 2)
    monkeypatch.setattr(residual, "_ROUND", 5)
    light, heavy = map(Model.open, models)
    request = Request(light, heavy, (photos,), texts, kind, "mine", 0, 1, cache / "fit")
    warned: list[str] = []
    manifest, aligned = align_models(
        request, tmp_path / "out", replace=False, progress=lambda stage, done, total: None, warn=warned.append
    )
    assert manifest.name == "mine" and manifest.text == light.manifest.text
    made, (pictures, words) = Model.open(tmp_path / "out"), aligned.parts
    files = sorted(photos.iterdir())[:9]
    expected = pictures.fitted.map.apply(ImageEncoder(light).encode(files))
    np.testing.assert_allclose(ImageEncoder(made).encode(files), expected, atol=1e-5)
    given = ["a red dog", "never seen before", ""]
    np.testing.assert_allclose(
        TextEncoder(made).encode(given), words.fitted.map.apply(TextEncoder(light).encode(given)), atol=1e-5
    )
    assert not np.allclose(pictures.fitted.map.weight, words.fitted.map.weight, atol=1e-3)
    assert {name for name in manifest.quality if name.startswith("asymmetric_text_")} == {
        "asymmetric_text_light_heavy_recall_at_1", "asymmetric_text_light_heavy_recall_at_10",
        "asymmetric_text_mean_cosine",
    }  # fmt: skip
    assert words.counts["training"] + words.counts["validation"] + words.counts["test"] == 120
    assert [warning.split(" are fewer")[0].split(" ", 1)[1] for warning in warned] == [
        "training pictures", "training texts",
    ]  # fmt: skip
    assert verify(tmp_path / "out")


def test_ridge_is_the_least_squares_of_the_training_pictures(
    models: tuple[Path, Path], photos: Path, cache: Path, tmp_path: Path
) -> None:
    """The whole way again in another way: encoders, the hash's split, and least squares with the penalty as rows."""
    from pocketlens.files import sha256_of

    light, heavy = map(Model.open, models)
    request = Request(light, heavy, (photos,), None, "ridge", None, 0, 1, cache / "fit")
    _, aligned = align_models(
        request, tmp_path / "out", replace=False, progress=lambda stage, done, total: None, warn=lambda text: None
    )
    fitted = aligned.parts[0].fitted
    files = [path for path in sorted(photos.iterdir()) if int(sha256_of(path)[:16], 16) % 10 > 1]
    x, y = (ImageEncoder(model).encode(files).astype(np.float64) for model in (light, heavy))
    assert len(files) == aligned.parts[0].counts["training"]
    mean = x.mean(axis=0)
    x_c, penalty = x - mean, float(fitted.chosen.removeprefix("penalty "))
    scale = np.square(x_c).sum() / x.size
    penalty = 10 ** (round(2 * np.log10(penalty)) / 2)  # shown with three digits
    rows = np.vstack([x_c, np.sqrt(len(x) * penalty * scale) * np.eye(512)])
    weight = np.linalg.lstsq(rows, np.vstack([y - y.mean(axis=0), np.zeros((512, 768))]))[0]
    np.testing.assert_allclose(fitted.map.weight, weight, atol=1e-6)
    np.testing.assert_allclose(fitted.map.bias, y.mean(axis=0) - mean @ weight, atol=1e-6)


def test_a_bundle_of_the_heavy_gallery_and_the_light_queries(
    run: Align, models: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    succeed(run())
    heavy, made = Model.open(models[1]), Model.open(tmp_path / "out")
    build_bundle(photos, tmp_path / "heavy", model=heavy, query_model=heavy)
    pack_bundle(tmp_path / "mixed", gallery=tmp_path / "heavy" / "gallery", text=heavy, image=made)
    with open_lens(tmp_path / "mixed") as lens:
        files = sorted(photos.iterdir())[:40]
        found = [path.name in {hit.id for hit in lens.search(image=path, k=5)} for path in files]
        assert len(lens.search(text="a red dog", k=3)) == 3
    assert sum(found) > 34


def test_the_same_call_gives_the_same_bytes_and_replaces_its_own_folder(run: Align, tmp_path: Path) -> None:
    succeed(run())
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files_below(tmp_path / "out")}
    fail(run(), FormatError, "out exists already")
    succeed(run("--replace"))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files_below(tmp_path / "out")} == before


def test_a_quantized_light_model_loses_its_networks_and_says_so(run: Align, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:70]:
        shutil.copy(path, few)
    shown = succeed(run("--light", "lens-base", "--name", "mine", pictures=few))
    made = Model.open(tmp_path / "out").manifest
    assert made.name == "mine" and made.image is not None
    assert made.image.precision.startswith("static int8") and made.image.precision.endswith(", float32 map")
    assert (made.inversion, made.concepts) == ({}, None) and made.quantization is not None
    assert "The inversion networks and names of lens-base belong to its own space and are left out." in shown
    assert "Texts are asked through heavy's text tower" in shown
    assert "quantization.md" not in made.files
    assert f"--image {tmp_path / 'out'} --text" in shown


def test_the_page(run: Align, tmp_path: Path) -> None:
    succeed(run("--seed", "7"))
    page = (tmp_path / "out" / "align.md").read_text()
    quality = Model.open(tmp_path / "out").manifest.quality
    row = [quality[f"asymmetric_light_heavy_recall_at_{k}"] for k in (1, 10)]
    assert f"| light, mapped | heavy | {row[0]:.3f} | {row[1]:.3f} |" in page
    assert "not mapped" not in page  # the dimensions differ
    assert "Seed 7." in page and "![recall by places](align.svg)" in page
    assert "<svg" in (tmp_path / "out" / "align.svg").read_text()


def test_fewer_pictures_than_dimensions(run: Align) -> None:
    result = run()
    succeed(result)
    assert "warning: 1" in result.stderr and "are fewer than the 512 dimensions of light" in result.stderr


def changed(folder: Path, out: Path, **changes: Any) -> Path:
    """Return a copy of a model folder with other fields in its model.json."""
    shutil.copytree(folder, out)
    edit_json(out / "model.json", **changes)
    return out


def spoil(folder: Path, out: Path) -> Path:
    """Return a copy of a model folder whose image tower gives NaN."""
    shutil.copytree(folder, out)
    graph = onnx.load(str(out / "image.onnx"))
    for tensor in graph.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, np.nan), tensor.name))
    onnx.save(graph, str(out / "image.onnx"))
    sign(out / "model.json")
    return out


def test_too_few(run: Align, photos: Path, texts: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:63]:
        shutil.copy(path, few)
        shutil.copy(path, few / f"copy of {path.name}")
    fail(run(pictures=few), FormatError, "few: 63 different pictures can be read, expected at least 64")
    (tmp_path / "few.txt").write_text("\n".join(["a cat", "a dog"] * 40))
    fail(
        run("--texts", str(tmp_path / "few.txt")),
        FormatError,
        r"few\.txt holds 2 different texts, expected at least 64",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["light", "heavy"])
def test_models_that_lack_something(
    run: Align, models: tuple[Path, Path], texts: Path, tmp_path: Path, side: str
) -> None:
    folder = models[("light", "heavy").index(side)]
    blind = changed(folder, tmp_path / "blind", image=None)
    fail(run(f"--{side}", str(blind)), MissingPart, f"blind: the {side} model {side} has no image tower, expected one")
    mute = changed(folder, tmp_path / "mute", text=None)
    words: Sequence[str] = (f"--{side}", str(mute), "--texts", str(texts))
    fail(run(*words), MissingPart, f"mute: the {side} model {side} has no text tower, so that no map")
    illiterate = changed(folder, tmp_path / "illiterate", text__tokenizer=None)
    words = (f"--{side}", str(illiterate), "--texts", str(texts))
    fail(run(*words), MissingPart, f"illiterate: the {side} model {side} has no tokenizer, so that no map")
    nan = spoil(folder, tmp_path / "nan")
    fail(run(f"--{side}", str(nan)), FormatError, r"gives NaN or infinity for '000\.png'")


def test_one_model_on_both_sides(run: Align, models: tuple[Path, Path], tmp_path: Path) -> None:
    fail(run("--light", str(models[1])), FormatError, "is of the space of .*heavy already, heavy@.*nothing to map")
    other = changed(models[1], tmp_path / "other", space__id="other@" + "0" * 64)
    fail(run("--light", str(other)), FormatError, "have the same image tower, expected two different ones")


def test_a_changed_model_is_encoded_again(run: Align, models: tuple[Path, Path], tmp_path: Path) -> None:
    """A heavy model whose embeddings are turned round: the map follows, although the old vectors lie in the cache."""
    before = succeed(run("--json"))
    other = Path(shutil.copytree(models[1], tmp_path / "other"))
    graph = onnx.load(str(other / "image.onnx"))
    for node in graph.graph.node:
        node.output[:] = ["straight" if name == "embedding" else name for name in node.output]
    graph.graph.node.append(onnx.helper.make_node("Neg", ["straight"], ["embedding"]))
    onnx.save(graph, str(other / "image.onnx"))
    sign(other / "model.json")
    after = succeed(run("--json", "--heavy", str(other), "--out", str(tmp_path / "turned")))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    straight, turned = (ImageEncoder(Model.open(tmp_path / name)).encode_pixels(pixels) for name in ("out", "turned"))
    np.testing.assert_allclose(turned, -straight, atol=1e-4)
    assert after["quality"] == pytest.approx(before["quality"], abs=1e-6)
