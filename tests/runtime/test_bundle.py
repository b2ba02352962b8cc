from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pocketlens
from pocketlens.bundle import read_bundle
from pocketlens.errors import CorruptFile, EncoderMismatch, FormatError, MissingPart, PocketlensError
from pocketlens.inspect import verify
from pocketlens.model import Model, Space
from pocketlens_export.gallery.build import build_bundle, pack_bundle
from tests.colours import write_colours
from tests.folders import edit_json, files_below, flip, positions, sign, sign_bundle

FILES = [
    "bundle.json",
    "gallery/columns/0.i64",
    "gallery/columns/1.i64",
    "gallery/columns/2.i64",
    "gallery/columns/3.i64",
    "gallery/columns/4.i32",
    "gallery/columns/4.words.i64",
    "gallery/columns/4.words.utf8",
    "gallery/columns/rows.i64",
    "gallery/gallery.json",
    "gallery/index.usearch",
    "gallery/items.sqlite",
    "gallery/rescore.f16",
    "gallery/stats.npz",
    "image/golden.npz",
    "image/image.onnx",
    "image/model.json",
    "text/golden.npz",
    "text/model.json",
    "text/text.onnx",
    "text/tokenizer.json",
]


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def use(bundle: Path) -> None:
    """Open a bundle, ask it by text and by picture; golden values are read by `verify` alone."""
    with pocketlens.open(bundle) as lens:
        lens.search(text="red", k=1)
        lens.search(image=Image.new("RGB", (9, 9)), k=1)
    verify(bundle)


def test_a_bundle_has_these_files_and_no_more(bundle: Path) -> None:
    assert files_below(bundle) == FILES
    use(bundle)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_found_and_the_file_named(own: Path, name: str, rng: np.random.Generator) -> None:
    path = own / name
    content = path.read_bytes()
    for position in positions(len(content), rng):
        flip(path, position, bit=int(rng.integers(8)))
        with pytest.raises(FormatError) as caught:
            use(own)
        assert str(path) in str(caught.value), f"at byte {position}"
        path.write_bytes(content)
    use(own)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "longer", "folder"])
def test_a_harmed_file_is_found_and_named(own: Path, name: str, harm: str) -> None:
    path = own / name
    content = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-1], "longer": content + b"\n"}[harm])
    with pytest.raises(FormatError) as caught:
        use(own)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("bundle.json", "image/image.onnx")])
def test_a_file_of_another_bundle_is_found_and_named(
    own: Path, name: str, colours: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other")
    (folder / "pictures").mkdir()
    for i in range(4):
        Image.new("RGB", (40 + i, 30), (60 * i, 20, 90)).save(folder / "pictures" / f"{i}.png")
    model = Model.open(write_colours(folder / "model", name="namesake"))
    for changed in ("golden.npz", "text.onnx", "tokenizer.json"):
        (model.path / changed).write_bytes((model.path / changed).read_bytes() + b" ")
    sign(model.path / "model.json")
    model = Model.open(model.path)
    build_bundle(folder / "pictures", folder / "bundle", model=model, query_model=model)
    shutil.copyfile(folder / "bundle" / name, own / name)
    with pytest.raises(CorruptFile) as caught:
        use(own)
    assert caught.value.path == own / name


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_tower_is_checked_when_it_is_first_used_and_not_before(own: Path, tower: str) -> None:
    flip(own / tower / f"{tower}.onnx", 100)
    with pocketlens.open(own) as lens:
        queries = {"text": {"text": "red"}, "image": {"image": Image.new("RGB", (9, 9))}}
        other = "image" if tower == "text" else "text"
        assert lens.search(**queries[other], k=1)  # type: ignore[arg-type]
        with pytest.raises(CorruptFile, match=f"{tower}/{tower}.onnx is damaged"):
            lens.search(**queries[tower], k=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "known"),
    [("bundle.json", 1), ("gallery/gallery.json", 1), ("text/model.json", 1), ("image/model.json", 1)],
)
def test_an_unknown_version_is_refused_by_number(own: Path, part: str, known: int) -> None:
    edit_json(own / part, version=99)
    if part != "bundle.json":
        with pytest.raises(CorruptFile, match=part):
            use(own)
        with pytest.raises(FormatError, match=f"{part}: version is 99; this pocketlens reads version {known}"):
            verify((own / part).parent)
        return
    with pytest.raises(FormatError, match=r"bundle\.json: version is 99; this pocketlens reads version 1"):
        use(own)


def test_whitespace_that_json_ignores_is_a_change_too(own: Path) -> None:
    path = own / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version":  1'))
    with pytest.raises(CorruptFile, match=r"bundle\.json is damaged: found other bytes, expected sha256"):
        read_bundle(own)


def test_a_folder_that_is_not_there_is_named(own: Path) -> None:
    with pytest.raises(FormatError, match="nothing does not exist; expected a pocketlens-bundle folder"):
        pocketlens.open(own / "nothing")


@pytest.mark.parametrize("name", ["empty", "file", "gallery", "text"])
def test_what_is_no_bundle_is_refused_by_the_missing_file(own: Path, name: str) -> None:
    (own / "empty").mkdir()
    (own / "file").write_bytes(b"")
    with pytest.raises(FormatError, match=f"{name}/bundle.json not found; expected a pocketlens-bundle folder"):
        pocketlens.open(own / name)


def test_a_tower_of_another_space_is_refused_even_when_signed(own: Path) -> None:
    edit_json(own / "text" / "model.json", space={"id": "elsewhere@1", "dim": 4})
    with pytest.raises(EncoderMismatch, match=r"text: model colours encodes into space elsewhere@1 \(4-d\)"):
        sign_bundle(own)
    edit_json(own / "image" / "model.json", space={"id": "elsewhere@1", "dim": 4})
    edit_json(own / "gallery" / "gallery.json", space={"id": "elsewhere@1", "dim": 4})
    sign_bundle(own)
    use(own)
    assert read_bundle(own).space == Space("elsewhere@1", 4)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_bundle_may_have_one_tower(bundle: Path, colours: Path, tmp_path: Path, tower: str) -> None:
    model = Model.open(colours)
    towers = {"text": None, "image": None, tower: model}
    pack_bundle(tmp_path / "b", gallery=bundle / "gallery", text=towers["text"], image=towers["image"])
    assert files_below(tmp_path / "b") == [n for n in FILES if n.startswith(("bundle", "gallery", tower))]
    verify(tmp_path / "b")


def test_packing_gives_the_bytes_that_building_gave(bundle: Path, colours: Path, tmp_path: Path) -> None:
    model = Model.open(colours)
    pack_bundle(tmp_path / "b", gallery=bundle / "gallery", text=model, image=model)
    assert files_below(tmp_path / "b") == FILES
    for name in FILES:
        assert (tmp_path / "b" / name).read_bytes() == (bundle / name).read_bytes(), name


def test_packing_takes_only_the_files_that_the_gallery_lists(own: Path, colours: Path, tmp_path: Path) -> None:
    (own / "gallery" / "private.txt").write_text("mine")
    pack_bundle(tmp_path / "b", gallery=own / "gallery", text=Model.open(colours), image=None)
    assert "gallery/private.txt" not in files_below(tmp_path / "b")


@pytest.mark.parametrize("case", ["no tower", "damaged gallery", "damaged model", "no gallery", "existing"])
def test_a_failing_pack_leaves_nothing_behind(own: Path, colours: Path, tmp_path: Path, case: str) -> None:
    model_folder = Path(shutil.copytree(colours, tmp_path / "model"))
    model: Model | None = Model.open(model_folder)
    out, gallery = tmp_path / "out", own / "gallery"
    if case == "no tower":
        model = None
    elif case == "damaged gallery":
        flip(gallery / "rescore.f16", 0)
    elif case == "damaged model":
        flip(model_folder / "text.onnx", 0)
    elif case == "no gallery":
        gallery = own / "text"
    else:
        out = model_folder
    kind = MissingPart if case == "no tower" else FormatError
    with pytest.raises(kind) as caught:
        pack_bundle(out, gallery=gallery, text=model, image=None)
    assert isinstance(caught.value, PocketlensError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "own"]
    assert "model.json" in {path.name for path in model_folder.iterdir()}
