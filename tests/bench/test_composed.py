from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pocketlens.compose import METHODS
from pocketlens.encoder import TextEncoder
from pocketlens.model import Model
from pocketlens_bench.composed import run
from pocketlens_bench.measure import Options
from pocketlens_export.gallery.build import build_bundle
from tests.folders import add_concepts, add_inversion


@pytest.fixture
def bundle(colours: Path, pictures: Path, tmp_path: Path) -> Path:
    """A bundle that has what one network and the names are needed for."""
    folder = Path(shutil.copytree(colours, tmp_path / "model"))
    names = ["red", "green", "blue", "white"]
    add_inversion(folder, "lincir")
    add_concepts(folder, names, TextEncoder(Model.open(folder)).encode(names))
    model = Model.open(folder)
    build_bundle(pictures, tmp_path / "bundle", model=model, query_model=model)
    return tmp_path / "bundle"


def test_every_method_that_the_bundle_supports_is_timed(bundle: Path, pictures: Path) -> None:
    names: list[str] = []
    report = run(Options(bundle=bundle, pictures=pictures, quick=True), names.append)
    (table,) = report.tables.values()
    lacking = {"image", "text", *("pic2word", "searle", "isa", "pdv-pic2word", "pdv-searle", "pdv-isa")}
    assert [row["method"] for row in table] == [name for name in METHODS if name not in lacking] == names
    for row in table:
        assert float(row["over these"] or 0) > 0
        assert float(row["query p50 ms"] or 0) > 0.5 * float(row["own passes p50 ms"] or 0) > 0
    assert [bar.bar for bar in report.bars] == ["<= 1.25", "<= 2.2"]
    assert report.settings["rounds"] == 5
