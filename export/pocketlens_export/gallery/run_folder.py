"""The folder of a run that is not finished: its settings, its plan and its shards, beside the bundle to come.

A run that stops leaves it, and the same command goes on from there. It is removed when the bundle stands in its place,
or when the run ends before there is a shard.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pocketlens.bundle import MANIFEST
from pocketlens.codes import make_rotation
from pocketlens.errors import Busy, FormatError, NotWritten
from pocketlens.files import sha256_of, write_file
from pocketlens.lock import try_hold
from pocketlens.manifest import read_manifest, write_manifest
from pocketlens.model import Space
from pocketlens_export.gallery.plan import Plan
from pocketlens_export.gallery.shards import shard_path

FORMAT = "pocketlens-run"
VERSION = 1
_SETTINGS, _PLAN, _ROTATION, _SHARDS, _HEARTBEAT = "run.json", "plan.sqlite", "rotation.f32", "shards", "heartbeat.json"
_BUNDLE = "bundle.sha256"


@dataclass(frozen=True, slots=True)
class Settings:
    """run.json: everything that shards depend on. Two runs with the same settings make the same shards.

    Attributes:
        sources: absolute paths.
        base: sha256 of gallery.json of the bundle that is updated; None for a bundle that is made as a whole.
        model: the gallery encoder's name.
        space: its embedding space.
        image_sha256: of its image graph.
        formats: that are read.
        attributes: hash of all attributes that are given, and of how sources are read.
        provider: onnxruntime's execution provider.
        threads: of the encoder.
        batch, shard: entries of a batch and of a shard.
        versions: of what computes.
    """

    sources: tuple[str, ...]
    base: str | None
    model: str
    space: Space
    image_sha256: str
    formats: tuple[str, ...]
    attributes: str
    provider: str
    threads: int
    batch: int
    shard: int
    versions: dict[str, str]


class RunFolder:
    """An unfinished run, held by this process alone.

    Attributes:
        path: the folder.
        resumed: whether it was there before.
        is_abandoned: whether it is removed, however it ends.
    """

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.is_abandoned = False

    def abandon(self) -> None:
        """Let nothing be kept: to go on would end as it did."""
        self.is_abandoned = True

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.path / _SHARDS

    @property
    def heartbeat(self) -> Path:
        """The file that tells how far it is."""
        return self.path / _HEARTBEAT

    @property
    def has_shards(self) -> bool:
        """Whether there is anything to go on from."""
        return next(self.shards.glob("*.npz"), None) is not None

    @property
    def plan(self) -> Path:
        """The file of the plan."""
        return self.path / _PLAN

    @property
    def rotation(self) -> Path:
        """The rotation of the codes, float32 (dim, dim), which whoever makes a shard of this run uses."""
        return self.path / _ROTATION

    def note(self, sha256: str) -> None:
        """Write down the hash of the bundle.json that will stand in its place next."""
        write_file(self.path / _BUNDLE, sha256.encode())

    def forget(self, numbers: Iterable[int]) -> None:
        """Remove shards, which will be made again."""
        for number in numbers:
            shard_path(self.shards, number).unlink(missing_ok=True)

    def missing(self, plan: Plan) -> list[int]:
        """Return the numbers of the shards that are not there yet."""
        return [number for number in range(plan.shards) if not shard_path(self.shards, number).exists()]


def has_placed(path: Path, out: Path) -> bool:
    """Return whether the run in the folder `path` was killed after it put its bundle at `out`, before it ended."""
    noted, manifest = path / _BUNDLE, out / MANIFEST
    return noted.is_file() and manifest.is_file() and noted.read_bytes() == sha256_of(manifest).encode()


@contextmanager
def open_run(path: Path, settings: Settings, *, restart: bool = False) -> Iterator[RunFolder]:
    """Yield the folder of a run: a new one, or that of a run which was stopped. It is removed if it ends well or early.

    Args:
        path: the folder.
        settings: of this run.
        restart: forget what is there.

    Raises:
        FormatError: what is there is a run with other settings, or no run.
        Busy: another process is at it.
        NotWritten: the disk is full or failing.
    """
    path = path.absolute()
    made = [parent for parent in path.parents if not parent.exists()]
    resumed = path.exists()
    if resumed:
        _check_settings(path, settings, restart)
    try:
        (path / _SHARDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritten(path, error) from error
    with try_hold(path) as held:
        if held is False:
            raise Busy(f"{path}: another process is making this bundle")
        if restart:
            shutil.rmtree(path / _SHARDS)
            (path / _SHARDS).mkdir()
            for name in (_PLAN, _ROTATION, _BUNDLE):
                (path / name).unlink(missing_ok=True)
        run = RunFolder(path, resumed=resumed and not restart and (path / _PLAN).exists())
        try:
            write_manifest(path / _SETTINGS, settings, format=FORMAT, version=VERSION)
            if not run.rotation.exists():
                write_file(run.rotation, make_rotation(settings.space.dim).tobytes())
            yield run
        except BaseException:
            if run.is_abandoned or not run.has_shards:
                _remove(path, made)
            raise
        _remove(path, [])


def _check_settings(path: Path, settings: Settings, restart: bool) -> None:
    if not (path / _SETTINGS).exists():
        begun = all(each.name == _SHARDS or each.name.startswith(f".{_SETTINGS}.") for each in path.iterdir())
        if begun and not any((path / _SHARDS).glob("*")):
            return  # killed before there was more
        raise FormatError(f"{path} is no unfinished run; remove it, or choose another name for the bundle")
    if restart:
        return
    found = read_manifest(path / _SETTINGS, Settings, format=FORMAT, version=VERSION)
    for each in fields(Settings):
        there, here = getattr(found, each.name), getattr(settings, each.name)
        if there != here:
            raise FormatError(
                f"{path} holds an unfinished run with other settings: {each.name} is {_shown(there)}, expected "
                f"{_shown(here)}; give what was given then to go on, or --restart to begin anew"
            )


def _shown(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _remove(path: Path, made: list[Path]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for parent in made:
        with suppress(OSError):  # something else is there by now
            parent.rmdir()
