"""Who takes part, who is compared with whom, and what vectors of another width become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens.errors import BadQuery, EncoderMismatch, FormatError, MissingPart
from pocketlens_bench.asymmetric_models import Pair, open_entrants, pairs_of, time_encoders
from tests.bench.asymmetric_models import BLUE_BLIND, NARROW, OTHER, RED_ONLY, SHIFTED, without_image, write_seeing
from tests.colours import SPACE


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two light models and a query model; read-only."""
    folder = tmp_path_factory.mktemp("seeing")
    write_seeing(folder / "shifted", SHIFTED, name="shifted", space=OTHER)
    write_seeing(folder / "narrow", RED_ONLY, name="narrow", space=NARROW)
    write_seeing(folder / "blind", BLUE_BLIND, name="blind")
    return {path.name: str(path) for path in folder.iterdir()}


def test_all_models_and_all_pairs(folders: dict[str, str], colours: Path) -> None:
    entrants = open_entrants(str(colours), [folders["shifted"], folders["narrow"]], [folders["blind"]])
    assert [(each.label, each.role) for each in entrants] == [
        ("colours", "heavy"), ("shifted", "light"), ("narrow", "light"), ("blind", "query"),
    ]  # fmt: skip
    assert [(pair.kind, pair.query.label, pair.gallery.label, pair.cut) for pair in pairs_of(entrants)] == [
        ("heavy-heavy", "colours", "colours", None),
        ("light-light", "shifted", "shifted", None),
        ("light-light", "narrow", "narrow", None),
        ("light-light", "blind", "blind", None),
        ("light-heavy raw", "shifted", "colours", None),
        ("light-heavy raw", "narrow", "colours", 3),
        ("light-heavy", "blind", "colours", None),
    ]
    assert entrants[0].image_bytes == (colours / "image.onnx").stat().st_size


def test_vectors_are_cut_to_the_smaller_width_and_are_units_again(folders: dict[str, str], colours: Path) -> None:
    entrants = open_entrants(str(colours), [folders["narrow"]], [])
    raw = pairs_of(entrants)[-1]
    vectors = np.array([[3, 0, 4, 5], [0, 0, 0, 1]], dtype=np.float32)
    assert raw.fit(vectors).tolist() == [[pytest.approx(0.6), 0, pytest.approx(0.8)], [0, 0, 0]]
    assert Pair("heavy-heavy", entrants[0], entrants[0]).fit(vectors) is vectors


def test_models_of_one_name_are_told_apart_by_folder_and_number(colours: Path, tmp_path: Path) -> None:
    names = ["a", "b/model", "c/model"]
    paths = [str(write_seeing(tmp_path / name, BLUE_BLIND, name="colours")) for name in names]
    entrants = open_entrants(str(colours), [], [*paths, paths[0]])
    labels = [each.label for each in entrants]
    assert labels == ["colours (colours)", "colours (a) #1", "colours (b)", "colours (c)", "colours (a) #2"]


def test_a_query_model_of_another_space_names_both(folders: dict[str, str], colours: Path) -> None:
    with pytest.raises(EncoderMismatch) as error:
        open_entrants(str(colours), [], [folders["shifted"]])
    for text in (SPACE.id, OTHER.id, folders["shifted"], str(colours)):
        assert text in str(error.value)


def test_a_light_model_of_the_heavy_space_is_no_control(folders: dict[str, str], colours: Path) -> None:
    with pytest.raises(BadQuery, match="give it with --query"):
        open_entrants(str(colours), [folders["blind"]], [])


def test_models_that_cannot_take_part(colours: Path, tmp_path: Path, folders: dict[str, str]) -> None:
    with pytest.raises(BadQuery, match="--light MODEL or --query MODEL"):
        open_entrants(str(colours), [], [])
    with pytest.raises(MissingPart, match="no image tower"):
        open_entrants(str(without_image(tmp_path / "text")), [], [folders["blind"]])
    with pytest.raises(FormatError, match="neither a model folder nor"):
        open_entrants(str(colours), ["nothing"], [])


def test_times_are_medians_and_the_heavy_model_is_the_measure(folders: dict[str, str], colours: Path) -> None:
    entrants = open_entrants(str(colours), [], [folders["blind"]])
    told: list[tuple[int, int]] = []
    found = time_encoders(entrants, progress=lambda what, done, of: told.append((done, of)))
    assert list(found) == ["colours", "blind"]
    assert found["colours"].of_heavy == 1.0
    assert all(0 < each.milliseconds < 50 for each in found.values())
    assert 0.2 < found["blind"].of_heavy < 5  # graphs of one size
    assert told[-1] == (10, 10)
