from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from pocketlens.errors import FormatError
from pocketlens.model import Model, PictureSpec
from pocketlens.picture import preprocess, read_picture
from pocketlens_export.distill.drawing import Look, draw_view, read_sheet
from pocketlens_export.distill.reinforced import Plan, ReinforcedSet, reinforce, set_size_bytes
from pocketlens_export.embeddings import Embeddings, encode_pictures
from tests.colours import expected_picture
from tests.export.distill.paintings import write_paintings
from tests.folders import sign

LIGHT = PictureSpec("image.onnx", "float32", 20, 24, "squash", "bicubic", None)
PLAN = Plan(views=3, look=Look(crop=0.3, flip=True, jitter=0.2, background=0.0), seed=5)


def no_other(number: int) -> Image.Image:
    raise AssertionError("opaque pictures have no other behind them")


def silent(stage: str, done: int, total: int) -> None:
    assert 1 <= done <= total


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twenty pictures; read-only."""
    return write_paintings(tmp_path_factory.mktemp("paintings"), 20)


@pytest.fixture(scope="module")
def found(colours: Path, paintings: Path, tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    cache = tmp_path_factory.mktemp("cache")
    return encode_pictures(Model.open(colours), paintings, cache=cache, progress=silent)


def test_views_and_what_the_heavy_tower_makes_of_them(colours: Path, found: Embeddings, tmp_path: Path) -> None:
    heavy = Model.open(colours)
    views = reinforce(found, heavy, LIGHT, PLAN, cache=tmp_path, progress=silent)
    assert views.pixels.shape == (20, 3, 24, 24, 3) and views.vectors.shape == (20, 3, 4)
    spec = heavy.manifest.image
    assert spec is not None
    for row in (0, 7, 19):
        sheet = read_sheet(read_picture(found.paths[row]))
        seen = [sheet.image]
        for number in (1, 2):
            rng = np.random.default_rng([5, number, int(found.sha256[row][:16], 16)])
            seen.append(draw_view(sheet, PLAN.look, rng, other=no_other, least=24))
        for number, view in enumerate(seen):
            np.testing.assert_array_equal(views.pixels[row, number], preprocess(view, LIGHT))
            np.testing.assert_allclose(
                views.vectors[row, number], expected_picture(preprocess(view, spec)[None])[0], atol=1e-3
            )
    pixels, vectors = views.rows(np.array([7, 2]), np.array([2, 0]))
    np.testing.assert_array_equal(pixels, np.stack([views.pixels[7, 2], views.pixels[2, 0]]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[1], found.vectors[2], atol=1e-3)
    assert set_size_bytes(20, PLAN, LIGHT, 4) == views.pixels.nbytes + views.vectors.nbytes


def same(first: ReinforcedSet, second: ReinforcedSet) -> bool:
    return np.array_equal(first.pixels, second.pixels) and np.array_equal(first.vectors, second.vectors)


def test_a_stopped_run_goes_on(colours: Path, found: Embeddings, tmp_path: Path) -> None:
    heavy = Model.open(colours)
    whole = reinforce(found, heavy, LIGHT, PLAN, cache=tmp_path / "whole", progress=silent)

    def stop(stage: str, done: int, total: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reinforce(found, heavy, LIGHT, PLAN, cache=tmp_path / "cut", progress=stop)
    told: list[int] = []
    again = reinforce(
        found, heavy, LIGHT, PLAN, cache=tmp_path / "cut", progress=lambda stage, done, total: told.append(done)
    )
    assert told == [20]  # two batches of eight were there
    assert same(again, whole)
    reinforce(found, heavy, LIGHT, PLAN, cache=tmp_path / "cut", progress=lambda stage, done, total: told.append(done))
    assert told == [20]


def change_tower(folder: Path, factor: float) -> None:
    path = folder / "image.onnx"
    graph = onnx.load(str(path))
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array((values * np.float32(factor)).astype(np.float32), tensor.name))
    onnx.save(graph, str(path))
    sign(folder / "model.json")


def test_all_that_views_depend_on_makes_another_set(colours: Path, found: Embeddings, tmp_path: Path) -> None:
    def sha256(heavy: Path = colours, light: PictureSpec = LIGHT, plan: Plan = PLAN) -> str:
        return reinforce(found, Model.open(heavy), light, plan, cache=tmp_path / "cache", progress=silent).sha256

    changed = shutil.copytree(colours, tmp_path / "changed")
    change_tower(changed, 1.25)
    others = {
        sha256(heavy=changed),
        sha256(light=replace(LIGHT, side=16)),
        sha256(light=replace(LIGHT, mode="shortest")),
        sha256(plan=replace(PLAN, views=2)),
        sha256(plan=replace(PLAN, seed=6)),
        sha256(plan=replace(PLAN, look=replace(PLAN.look, flip=False))),
    }
    assert len(others) == 6 and sha256() not in others and sha256() == sha256()


def test_vectors_that_are_no_numbers_are_refused(colours: Path, found: Embeddings, tmp_path: Path) -> None:
    broken = shutil.copytree(colours, tmp_path / "broken")
    change_tower(broken, float("nan"))
    with pytest.raises(FormatError, match=r"NaN or infinity for a view of 0*\d+\.png"):
        reinforce(found, Model.open(broken), LIGHT, PLAN, cache=tmp_path / "cache", progress=silent)


def test_one_view_is_the_picture_itself(colours: Path, found: Embeddings, tmp_path: Path) -> None:
    views = reinforce(found, Model.open(colours), LIGHT, replace(PLAN, views=1), cache=tmp_path, progress=silent)
    np.testing.assert_allclose(views.vectors[:, 0], found.vectors, atol=1e-3)
