"""From what the command line names to sources: globs and ranges in braces are expanded, kinds told by the name."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketlens.decoders import Limits
from pocketlens.errors import FormatError
from pocketlens.show import printable
from pocketlens_export.gallery.sources.columns_kept import Kept
from pocketlens_export.gallery.sources.entry import Source, text_of
from pocketlens_export.gallery.sources.folder import Folder
from pocketlens_export.gallery.sources.parquet import Parquet
from pocketlens_export.gallery.sources.path_list import PathList
from pocketlens_export.gallery.sources.tar import Tar

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAGIC = re.compile(r"[*?[]")
_MAX_EXPANDED = 1_000_000
_KINDS = "a folder of pictures, or a .tar, .parquet or .txt file"


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read.

    Attributes:
        limits: which formats, and how large pictures may be.
        kept: columns that become attributes.
        image_column: of Parquet files; None takes the first that is known.
    """

    limits: Limits
    kept: Sequence[Kept] = ()
    image_column: str | None = None


def open_sources(names: Sequence[str | Path], reading: Reading) -> list[Source]:
    """Return the sources that these names stand for, in their order; those of a glob are sorted.

    Args:
        names: paths of folders, tar archives, Parquet files and lists of paths, with globs (`*`, `?`, `[...]`) and
            braces (`{0000..0099}`, `{a,b}`) where there is no such file.
        reading: how they are read.

    Raises:
        FormatError: there is no such file, or it is no source; or one stands twice.
    """
    paths = [path for name in names for path in _expand(str(name))]
    twice = next((path for path, count in Counter(paths).items() if count > 1), None)
    if twice is not None:
        raise FormatError(f"{twice} is given twice; expected each source once")
    return [_open(path.absolute(), reading) for path in paths]


def expand_braces(text: str) -> list[str]:
    """Return what a shell makes of braces; a range keeps its zeros.

    Raises:
        FormatError: it would be more than a million.
    """
    found = next((each for each in _BRACES.finditer(text) if "," in each[1] or _RANGE.fullmatch(each[1])), None)
    if found is None:
        return [text]
    span = _RANGE.fullmatch(found[1])
    choices = _numbers(span[1], span[2], text) if span else found[1].split(",")
    rest = expand_braces(text[found.end() :])
    if len(choices) * len(rest) > _MAX_EXPANDED:
        raise FormatError(f"{text} stands for more than {_MAX_EXPANDED} names")
    return [f"{text[: found.start()]}{choice}{end}" for choice in choices for end in rest]


def _numbers(first: str, last: str, text: str) -> list[str]:
    start, stop = int(first), int(last)
    if abs(stop - start) >= _MAX_EXPANDED:
        raise FormatError(f"{text} stands for more than {_MAX_EXPANDED} names")
    width = max(len(first), len(last)) if first[0] == "0" or last[0] == "0" else 0
    step = 1 if stop >= start else -1
    return [f"{number:0{width}}" for number in range(start, stop + step, step)]


def _expand(name: str) -> list[Path]:
    if Path(name).exists():
        return [Path(name)]
    paths = []
    for each in expand_braces(name):
        if not _MAGIC.search(each) or Path(each).exists():
            paths.append(Path(each))
            continue
        found = sorted(glob.glob(each))  # noqa: PTH207  # an absolute pattern, as a shell takes it
        if not found:
            raise FormatError(f"{each} matches no file; expected {_KINDS}")
        paths += map(Path, found)
    return paths


def _open(path: Path, reading: Reading) -> Source:
    if path.is_dir():
        return Folder(path, reading.limits)
    if not path.exists():
        raise FormatError(f"{path} is not a folder; expected {_KINDS}: nothing is there")
    if text_of(path.name) is None:
        raise FormatError(f"{printable(str(path))} has a name that is not UTF-8, and ids of pictures come from it")
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return Tar(path, reading.limits, reading.kept)
    if suffix == ".parquet":
        return Parquet(path, reading.image_column, reading.kept)
    if suffix == ".txt":
        return PathList(path)
    packed = suffix in (".gz", ".tgz", ".bz2", ".xz", ".zst")
    more = "; compressed archives cannot be gone through in parts, so unpack it to a .tar first" if packed else ""
    raise FormatError(f"{path} is not a folder; expected {_KINDS}{more}")
