"""Every protocol's tiny files with a bundle of their pictures, made once by the model of colours and by lens-base."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from pocketlens.model import Model, find_model
from pocketlens_export.gallery.build import build_bundle
from tests.bench.protocols.files import INDEXED, WRITERS


class Folders(Protocol):
    """Gives the data folder and the bundle of a protocol."""

    def __call__(self, protocol: str) -> tuple[Path, Path]: ...


def _folders(model: Model, parent: Path) -> Folders:
    made: dict[str, tuple[Path, Path]] = {}

    def make(protocol: str) -> tuple[Path, Path]:
        if protocol not in made:
            data, bundle = WRITERS[protocol](parent / protocol), parent / f"{protocol}-bundle"
            build_bundle(data / INDEXED[protocol], bundle, model=model, query_model=model)
            made[protocol] = data, bundle
        return made[protocol]

    return make


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Folders:
    """Bundles whose vectors can be worked out by hand; read-only."""
    return _folders(Model.open(colours), tmp_path_factory.mktemp("coloured"))


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Bundles by the model that ships; read-only."""
    return _folders(Model.open(find_model("lens-base")), tmp_path_factory.mktemp("shipped"))
