"""lens-base's recipe, loaded where it lies: what fetches packages, reads emoji, and says what is held out.

It is not copied, so that the two models cannot disagree about which concepts are kept from training.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "models" / "lens-base" / "recipe"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def load(path: Path, name: str) -> ModuleType:
    """Return the module in a file, under `name`."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses with slots, and lens-base's own imports, look their module up by name
    spec.loader.exec_module(module)
    return module


_SOURCES = load(RECIPE / "sources.py", "sources")
_SPLIT = load(RECIPE / "split.py", "split")

NPM: dict[str, str] = _SOURCES.NPM
fetch_npm: Callable[[str, str, Path], Any] = _SOURCES.fetch_npm
fetch_debian: Callable[[str, Path], Any] = _SOURCES.fetch_debian
concept_of: Callable[[str], str] = _SPLIT.concept_of
split_of: Callable[[str], str] = _SPLIT.split_of


def read_emoji(packages: dict[str, Any]) -> list[Any]:
    """Return lens-base's emoji: records with `path`, `source`, `texts` and `part`; skin tones are not among them."""
    emoji: list[Any] = load(RECIPE / "pictures.py", "lens_base_pictures").emoji(packages)
    return emoji
