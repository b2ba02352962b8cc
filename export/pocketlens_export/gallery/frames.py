"""How a process and its decoders talk: frames of JSON and bytes through pipes. No Python object is pickled."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np

from pocketlens._types import Uint8s

_SIZES = struct.Struct("<II")  # bytes of the JSON, and of what follows it


class Ended(Exception):
    """The other end is gone."""


def write_frame(handle: int, about: Any, content: bytes | memoryview = b"") -> None:
    """Write a frame; raises `Ended` when nobody will read it."""
    text = json.dumps(about).encode()
    try:
        for part in (_SIZES.pack(len(text), len(content)) + text, content):
            view = memoryview(part)
            while view:
                view = view[os.write(handle, view) :]
    except BrokenPipeError as error:
        raise Ended from error


def read_frame(handle: int) -> tuple[Any, Uint8s]:
    """Return a frame's JSON and bytes; raises `Ended` when none follows."""
    about_bytes, content_bytes = _SIZES.unpack(_read(handle, _SIZES.size).tobytes())
    about = json.loads(_read(handle, about_bytes).tobytes())
    return about, _read(handle, content_bytes)


def _read(handle: int, count: int) -> Uint8s:
    content = np.empty(count, dtype=np.uint8)
    view = memoryview(content)  # type: ignore[arg-type]
    while view:
        got = os.readv(handle, [view])
        if got == 0:
            raise Ended
        view = view[got:]
    return content
