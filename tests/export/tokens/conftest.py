"""Models and pictures that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketlens.model import Model
from tests.export.tokens.models import write_towers
from tests.quantize import towers


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The light model; read-only."""
    return Model.open(write_towers(tmp_path_factory.mktemp("models") / "light", seed=1))


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The heavy model, which gives features too; read-only."""
    return Model.open(write_towers(tmp_path_factory.mktemp("models") / "heavy", seed=2))


@pytest.fixture(scope="session")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The heavy model without features; read-only."""
    return Model.open(write_towers(tmp_path_factory.mktemp("models") / "blind", seed=2, features=False))


@pytest.fixture(scope="session")
def some_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 80 pictures; read-only."""
    return towers.write_pictures(tmp_path_factory.mktemp("pictures") / "patches", 80)
