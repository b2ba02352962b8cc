from __future__ import annotations

from pathlib import Path

import pytest

from pocketlens.encoder import TextEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens_quantize.inputs import Side, read_sides
from pocketlens_quantize.queries import sample_queries
from tests.quantize import towers

QUERIES = sample_queries(150)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(towers.write_model(tmp_path_factory.mktemp("models") / "towers"))


@pytest.fixture(scope="module")
def sides(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """Texts that each describe a picture, every one also in capitals beside the next picture."""
    folder = towers.write_pictures(tmp_path_factory.mktemp("pictures"), 128)
    lines = [f"{query}\t{number % 128:03}.png" for number, query in enumerate(QUERIES)]
    lines += [f"{query.upper()}\t{(number + 1) % 128:03}.png" for number, query in enumerate(QUERIES)]
    texts = tmp_path_factory.mktemp("texts") / "queries.txt"
    texts.write_text("\n".join(lines), encoding="utf-8")
    return read_sides(model, calibration=folder, measuring=None, texts=texts, progress=lambda line: None)


def ids(side: Side) -> set[tuple[int, ...]]:
    return {tuple(feed["input_ids"][0].tolist()) for feed in side.texts}


def test_no_measuring_text_has_the_ids_of_a_calibration_text(model: Model, sides: tuple[Side, Side]) -> None:
    steering, proving = sides
    assert steering.texts and proving.texts and not ids(steering) & ids(proving)
    encoder = TextEncoder(model)
    every = {tuple(encoder.pad([row])[0].tolist()) for row in encoder.tokenizer.ids(QUERIES)}
    assert ids(steering) | ids(proving) == every  # only the copies are gone


def test_every_text_lies_beside_the_picture_that_it_describes(sides: tuple[Side, Side]) -> None:
    for side in sides:
        assert len(side.labels) == len(side.texts) == len(side.float_texts)
        assert all(rows and max(rows) < len(side.pictures) for rows in side.labels)


def test_one_batch_is_as_long_as_a_text_can_be(sides: tuple[Side, Side]) -> None:
    for side in sides:
        lengths = [batch["input_ids"].shape[1] for batch in side.text_batches]
        assert lengths[0] == towers.CONTEXT and max(lengths) <= towers.CONTEXT and min(lengths) < towers.CONTEXT


def test_without_a_text_file_no_text_has_a_label(model: Model, tmp_path: Path) -> None:
    folder = towers.write_pictures(tmp_path / "pictures", 128, seed=8)
    sides = read_sides(model, calibration=folder, measuring=None, texts=None, progress=lambda line: None)
    assert not any(rows for side in sides for rows in side.labels)
    assert not ids(sides[0]) & ids(sides[1])


def test_captions_of_one_side_alone_are_refused(model: Model, tmp_path: Path) -> None:
    calibration = towers.write_pictures(tmp_path / "calibration", 64)
    measuring = towers.write_pictures(tmp_path / "measuring", 128)
    for copy in range(64):
        (measuring / f"{copy:03}.png").unlink()  # the two folders may share none
    texts = tmp_path / "queries.txt"
    texts.write_text("\n".join(f"{query}\t{n % 64:03}.png" for n, query in enumerate(QUERIES)), encoding="utf-8")
    with pytest.raises(FormatError, match=r"queries.txt: \d+ texts calibrate and 0 measure, expected at least 32 each"):
        read_sides(model, calibration=calibration, measuring=measuring, texts=texts, progress=lambda line: None)
