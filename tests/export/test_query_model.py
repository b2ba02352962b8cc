"""A bundle's towers may come from two models: a light query model, and the gallery's for what that lacks."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

import pocketlens
from pocketlens.errors import EncoderMismatch
from pocketlens.files import sha256_of
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, FileRecord, Model, Space
from pocketlens_export.gallery.build import build_bundle
from pocketlens_export.gallery.cli import pack
from pocketlens_export.gallery.index_cli import index
from tests.colours import write_colours


@pytest.fixture
def light(colours: Path, tmp_path: Path) -> Path:
    """A query model of the colours' space: another image tower, and no text tower."""
    folder = tmp_path / "light"
    folder.mkdir()
    source = Model.open(colours)
    graph = onnx.load(source.file("image.onnx"))
    graph.doc_string = "another file"
    onnx.save(graph, folder / "image.onnx")
    shutil.copyfile(source.file("golden.npz"), folder / "golden.npz")
    manifest = dataclasses.replace(source.manifest.only("image"), name="light")
    size = (folder / "image.onnx").stat().st_size
    files = manifest.files | {"image.onnx": FileRecord(sha256_of(folder / "image.onnx"), size)}
    write_manifest(folder / MANIFEST, dataclasses.replace(manifest, files=files), format=FORMAT, version=VERSION)
    return folder


def check_towers(bundle: Path, light: Path) -> None:
    verify(bundle)
    assert [Model.open(bundle / tower).manifest.name for tower in ("image", "text")] == ["light", "colours"]
    assert (bundle / "image" / "image.onnx").read_bytes() == (light / "image.onnx").read_bytes()
    with pocketlens.open(bundle) as lens:
        assert lens.search(text="green", k=1)[0].id == "green.png"
        assert lens.search(image=Image.new("RGB", (30, 40), (20, 20, 230)), k=1)[0].id == "blue.png"
        hits = lens.search(text="red", image=Image.new("RGB", (30, 40), (230, 20, 20)), k=2)
        assert {hit.id for hit in hits} == {"red.png", "more/red copy.png"}


def test_a_query_model_without_a_text_tower_shares_the_gallery_models(
    colours: Path, light: Path, pictures: Path, tmp_path: Path
) -> None:
    build_bundle(pictures, tmp_path / "bundle", model=Model.open(colours), query_model=Model.open(light))
    check_towers(tmp_path / "bundle", light)
    assert "colours" in (tmp_path / "bundle" / "gallery" / "gallery.json").read_text()


def test_so_does_the_command(colours: Path, light: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = [str(pictures), "--out", str(tmp_path / "b"), "--model", str(colours), "--query-model", str(light)]
    done = CliRunner().invoke(index, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "refuse texts" not in done.stderr
    check_towers(tmp_path / "b", light)


def test_pack_puts_the_light_tower_over_a_gallery_that_is_there(
    colours: Path, light: Path, bundle: Path, tmp_path: Path
) -> None:
    gallery = ["--gallery", str(bundle / "gallery"), "--out", str(tmp_path / "b")]
    CliRunner().invoke(pack, [*gallery, "--text", str(colours), "--image", str(light)], catch_exceptions=False)
    check_towers(tmp_path / "b", light)


def test_a_query_model_of_another_space_is_refused_before_anything_is_written(
    colours: Path, pictures: Path, tmp_path: Path
) -> None:
    space = Space("elsewhere@" + "5" * 64, Model.open(colours).manifest.space.dim)
    other = Model.open(write_colours(tmp_path / "other", name="other", space=space))
    with pytest.raises(EncoderMismatch) as caught:
        build_bundle(pictures, tmp_path / "bundle", model=Model.open(colours), query_model=other)
    assert space.id in str(caught.value) and Model.open(colours).manifest.space.id in str(caught.value)
    assert not (tmp_path / "bundle").exists()
