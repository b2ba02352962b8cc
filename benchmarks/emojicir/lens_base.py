"""Two modules of lens-base's recipe, loaded where they lie: what fetches its packages, and what split its training.

They are not copied, so that benchmark and model cannot disagree about concepts, nor about which it was trained on.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

RECIPE = Path(__file__).parents[2] / "models" / "lens-base" / "recipe"
PACKAGES = (
    "emoji-datasource-google",
    "emoji-datasource-twitter",
    "@lobehub/fluent-emoji-3d",
    "openmoji",
    "emojibase-data",
)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"emojicir_lens_base_{name}", RECIPE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{RECIPE / name}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses with slots look their module up by name
    spec.loader.exec_module(module)
    return module


_SPLIT = _load("split")
_split_of: Callable[[str], str] = _SPLIT.split_of
concept_of: Callable[[str], str] = _SPLIT.concept_of
fingerprint: Callable[[list[tuple[str, str]]], str] = _SPLIT.fingerprint


def split_of_label(label: str) -> str:
    """Return train, validation or test: where lens-base's recipe put the emoji that has this untoned label."""
    return _split_of(concept_of(label))


def fetch(cache: Path) -> dict[str, tuple[str, str, Path]]:
    """Return version, licence and folder of each package, fetching those that `cache` lacks."""
    sources = _load("sources")
    found = {name: sources.fetch_npm(name, sources.NPM[name], cache) for name in PACKAGES}
    return {name: (package.version, package.licence, package.folder) for name, package in found.items()}
