"""Which picture files lie in folders, in a fixed order, and which ids they get."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pocketlens.decoders import DEVICE, FORMATS, Limits
from pocketlens.errors import BadQuery, FormatError

_NEVER = frozenset({".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw"})
_BY_OPTION = {suffix: name for name, format in FORMATS.items() for suffix in format.suffixes}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was passed over: `reason` is a short fixed phrase that is counted, `detail` says more."""

    id: str
    reason: str
    detail: str


def list_files(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted by relative path.

    Hidden files and folders and bundles are left out. A linked folder is listed, to be counted, and not followed.

    Raises:
        FormatError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder} is not a folder; expected a folder of pictures")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not is_bundle(Path(root, name))]
        links = [name for name in folders if Path(root, name).is_symlink()]
        found += [Path(root, name) for name in (*names, *links) if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def skip_reason(name: str, path: Path, limits: Limits) -> Skipped | None:
    """Return why a listed file is not opened, by its name alone; None when it may be a picture.

    Args:
        name: the id it would have.
        path: the file.
        limits: say which formats, and so which suffixes, are read.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return Skipped(name.encode(errors="replace").decode(), "name is not text", "its name is not valid UTF-8")
    if path.is_dir():
        return Skipped(name, "linked folder", "links to folders are not followed")
    return skip_suffix(name, limits)


def skip_suffix(name: str, limits: Limits) -> Skipped | None:
    """Return why what has this name is not opened, by its suffix; None when it may be a picture."""
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in limits.suffixes():
        return None
    if suffix.lower() in _BY_OPTION:
        return Skipped(name, "unsupported format", f"{suffix} is read with --formats {_BY_OPTION[suffix.lower()]}")
    reason = "unsupported format" if suffix.lower() in _NEVER else "not a picture"
    return Skipped(name, reason, f"its suffix is {suffix or 'missing'}")


def find_pictures(
    paths: Iterable[Path], *, root: Path | None = None, limits: Limits = DEVICE
) -> tuple[dict[str, Path], list[Skipped]]:
    """Return the pictures among files and in folders, by id, and the files that were passed over.

    Args:
        paths: files, which are taken whatever their names, and folders, where suffixes tell.
        root: the folder that ids start from. Without it a folder's own pictures start at the folder, as with
            `pocketlens index`, and a file's id is its name.
        limits: say which suffixes are read.

    Raises:
        FormatError: a path does not exist.
        BadQuery: a picture is not below `root`, or two have the same id.
    """
    named: dict[str, Path] = {}
    skipped = []
    for path in paths:
        if not path.exists():
            raise FormatError(f"{path} does not exist; expected a picture or a folder of pictures")
        if not path.is_dir():
            _name(named, path, root)
            continue
        for file in list_files(path):
            passed = skip_reason(_id_of(file, root or path), file, limits)
            if passed is None:
                _name(named, file, root or path)
            else:
                skipped.append(passed)
    return named, skipped


def name_pictures(paths: Iterable[str | Path], *, root: str | Path | None = None) -> dict[str, Path]:
    """Return picture files by id: their names, or their paths below `root` with forward slashes.

    Raises:
        BadQuery: a picture is not below `root`, two have the same id, or there is one path where several belong.
    """
    if isinstance(paths, str | Path):
        raise BadQuery(f"add takes a list of paths, or pictures by id, found a single {type(paths).__name__}")
    named: dict[str, Path] = {}
    for path in paths:
        _name(named, Path(path), root)
    return named


def _name(named: dict[str, Path], path: Path, root: str | Path | None) -> None:
    id = path.name if root is None else _id_of(path, root)
    if id in named:
        raise BadQuery(f"{named[id]} and {path} get the same id {id!r}; give a root folder that tells them apart")
    named[id] = path


def _id_of(path: Path, root: str | Path) -> str:
    top, full = Path(os.path.abspath(root)), Path(os.path.abspath(path))  # noqa: PTH100  # links are part of the name
    if not full.is_relative_to(top) or full == top:
        raise BadQuery(f"{path} is not below {top}, which ids start from; give another root folder")
    return full.relative_to(top).as_posix()


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder is a bundle of pocketlens, whose files are no pictures of the user's."""
    return (folder / "bundle.json").is_file() and (folder / "gallery" / "gallery.json").is_file()
