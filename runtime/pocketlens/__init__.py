"""pocketlens: on-device picture retrieval.

    import pocketlens

    lens = pocketlens.open("bundle/")
    for hit in lens.search(text="a red bicycle", k=5):
        print(hit.id, hit.cosine)

Importing loads no native library; the first name that needs one does. Offline stages live in other packages.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

__version__ = version("pocketlens")

if TYPE_CHECKING:
    from pocketlens.encoder import ImageEncoder as ImageEncoder
    from pocketlens.encoder import TextEncoder as TextEncoder
    from pocketlens.errors import BadImage as BadImage
    from pocketlens.errors import BadQuery as BadQuery
    from pocketlens.errors import Busy as Busy
    from pocketlens.errors import CorruptFile as CorruptFile
    from pocketlens.errors import EncoderMismatch as EncoderMismatch
    from pocketlens.errors import Forked as Forked
    from pocketlens.errors import FormatError as FormatError
    from pocketlens.errors import MissingPart as MissingPart
    from pocketlens.errors import NotWritten as NotWritten
    from pocketlens.errors import PocketlensError as PocketlensError
    from pocketlens.errors import Refused as Refused
    from pocketlens.errors import WrongBase as WrongBase
    from pocketlens.hits import Hit as Hit
    from pocketlens.hits import Hits as Hits
    from pocketlens.lens import Lens as Lens
    from pocketlens.lens import open_lens as open
    from pocketlens.model import Model as Model
    from pocketlens.model import find_model as find_model

_HOME = {
    "BadImage": "errors",
    "BadQuery": "errors",
    "Busy": "errors",
    "CorruptFile": "errors",
    "EncoderMismatch": "errors",
    "Forked": "errors",
    "FormatError": "errors",
    "Hit": "hits",
    "Hits": "hits",
    "ImageEncoder": "encoder",
    "Lens": "lens",
    "MissingPart": "errors",
    "Model": "model",
    "NotWritten": "errors",
    "PocketlensError": "errors",
    "Refused": "errors",
    "TextEncoder": "encoder",
    "WrongBase": "errors",
    "find_model": "model",
    "open": "lens",
}

__all__ = [
    "BadImage",
    "BadQuery",
    "Busy",
    "CorruptFile",
    "EncoderMismatch",
    "Forked",
    "FormatError",
    "Hit",
    "Hits",
    "ImageEncoder",
    "Lens",
    "MissingPart",
    "Model",
    "NotWritten",
    "PocketlensError",
    "Refused",
    "TextEncoder",
    "WrongBase",
    "find_model",
    "open",
]


if not TYPE_CHECKING:  # a type checker that saw this would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'pocketlens' has no attribute {name!r}")
        return getattr(import_module(f"pocketlens.{_HOME[name]}"), "open_lens" if name == "open" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
