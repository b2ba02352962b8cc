"""Every error that pocketlens raises on purpose.

PocketlensError
├── FormatError            a folder or manifest is not what it should be: missing, foreign, unknown version, bad field
│   ├── CorruptFile        a file's bytes are not those its manifest recorded
│   ├── NotWritten         the disk is full, read-only or failing; what was there before is untouched
│   └── WrongBase          an update leads on from another generation than the bundle holds
├── EncoderMismatch        a query encoder and a gallery live in different embedding spaces
├── MissingPart            the bundle or installation lacks what the call needs (a tower, a tokenizer, an extra)
├── BadImage               a picture cannot be decoded
├── BadQuery               a query has the wrong type, shape or value (also a ValueError)
├── Busy                   another process is changing the same bundle, and did not finish in time
├── Forked                 what was opened before a fork is used after it, in the child
└── Refused                an offline stage measured its own result and did not write it

A message names the file, what was found and what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias


class PocketlensError(Exception):
    """Root of all errors raised on purpose; catching it catches every bad input."""


class FormatError(PocketlensError):
    """A folder or manifest is missing, foreign, of an unknown version, or has a wrong field."""


class CorruptFile(FormatError):
    """A file differs from what its manifest recorded. No native code has seen it."""

    def __init__(self, path: Path, *, found: str, expected: str) -> None:
        super().__init__(f"{path} is damaged: found {found}, expected {expected}")
        self.path = path


class NotWritten(FormatError):
    """A file or folder could not be written: the disk is full, read-only or failing. What was there is untouched."""

    def __init__(self, path: Path, error: Exception) -> None:
        strerror = error.strerror if isinstance(error, OSError) else None
        super().__init__(f"{path} cannot be written: {strerror or error}")
        self.path = path


class WrongBase(FormatError):
    """An update leads on from another generation of the gallery than the bundle holds. Nothing was changed.

    Attributes:
        found: the generation that the bundle holds.
        expected: the one that the update leads on from. It may have the same number, and be another gallery.
    """

    def __init__(self, message: str, *, found: int, expected: int) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class EncoderMismatch(PocketlensError):
    """A query encoder and a gallery belong to different embedding spaces."""


class MissingPart(PocketlensError):
    """The bundle, model or installation lacks a part that the call needs."""


ImageReason: TypeAlias = Literal["unreadable", "format", "too large", "truncated", "damaged"]


class BadImage(PocketlensError):
    """A picture cannot be decoded.

    Attributes:
        reason: "unreadable" (there is no file, or it cannot be read), "format" (of none that is read), "too large",
            "truncated" (it ends too early) or "damaged".
        detail: one line without the file's name.
    """

    def __init__(self, name: str, reason: ImageReason, detail: str) -> None:
        super().__init__(f"{name}: cannot be read as a picture: {detail}")
        self.reason: ImageReason = reason
        self.detail = detail


class BadQuery(PocketlensError, ValueError):
    """A query has the wrong type, shape or value."""


class Busy(PocketlensError):
    """Another process is changing the same bundle, and did not finish in time. Nothing was changed here."""


class Forked(PocketlensError):
    """What was opened before a fork is used after it, in the child: threads and locks stayed with the parent."""


class Refused(PocketlensError):
    """An offline stage measured its own result, found it wanting, and wrote nothing."""
