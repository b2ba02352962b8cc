"""What the commands of `pocketlens fit` share: opening a model, the cache's place, bars, and what is printed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from pocketlens.cli import printable
from pocketlens.errors import FormatError

if TYPE_CHECKING:
    from pocketlens.model import Model, ModelManifest

_LINE_SECONDS = 20.0  # between two lines of progress where there is no terminal


def cache_folder() -> Path:
    """Return the folder of checkpoints: POCKETLENS_CACHE or the user's cache."""
    cache = os.environ.get("POCKETLENS_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "pocketlens") / "fit"


def open_model(option: str, name: str) -> Model:
    """Open a model folder by the path or the shipped name that an option was given.

    Raises:
        FormatError: it is neither, or is a bundle.
    """
    from pocketlens.bundle import MANIFEST
    from pocketlens.model import Model, find_model

    folder = find_model(name)
    if (folder / MANIFEST).is_file():
        raise FormatError(f"{option}: {name} is a bundle, expected a model folder; the one of its texts is {name}/text")
    return Model.open(folder)


def print_inversion(manifest: ModelManifest, recipe: str, out: Path, *, as_json: bool) -> None:
    """Print what an inversion network is worth, where it lies, and what to do with it."""
    import dataclasses

    made = manifest.inversion[recipe]
    prefix = f"inversion_{recipe}_"
    quality = {key.removeprefix(prefix): v for key, v in manifest.quality.items() if key.startswith(prefix)}
    size = manifest.files[made.file].size_bytes
    if as_json:
        shown = {"recipe": recipe, "inversion": dataclasses.asdict(made), "quality": quality, "size_bytes": size}
        click.echo(json.dumps(shown, indent=2))
        return
    for name, value in quality.items():
        click.echo(f"{name:24} {value:.4f}")
    click.echo(f"{out}: {made.file}, {size / 1e6:.2f} MB; how it was trained is in inversion/{recipe}.md")
    print_next(manifest, out)


def print_next(manifest: ModelManifest, out: Path) -> None:
    """Print the commands that put the written folder into a bundle."""
    image = f" --image {quote(str(out))}" if manifest.image else ""
    click.echo(f"next: pocketlens pack --gallery BUNDLE/gallery --text {quote(str(out))}{image} --out NEW-BUNDLE")
    if manifest.image:
        click.echo(f"  or: pocketlens index PICTURES --model {quote(str(out))} --out NEW-BUNDLE")


class Bars:
    """Draws a bar with an ETA for every stage on stderr, or a line now and then where stderr is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""
        self._loss = ""
        self._told = time.monotonic()
        self._started = (time.monotonic(), 0)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of a stage."""
        if name != self._name:
            self._open(name, done - 1, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.pos)
        elif time.monotonic() - self._told > _LINE_SECONDS:
            self._tell(done, total)

    def training(self, done: int, total: int, loss: float) -> None:
        """Show a step and its loss."""
        self._loss = f"loss {loss:.4f}"
        self.stage("training", done, total)

    def _open(self, name: str, done: int, total: int) -> None:
        self._close()
        self._name = name
        self._started = (time.monotonic(), done)
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                length=total, label=name, file=sys.stderr, show_pos=True, update_min_steps=1,
                item_show_func=lambda item: self._loss,
            ).__enter__()  # fmt: skip

    def _tell(self, done: int, total: int) -> None:
        self._told = time.monotonic()
        since, before = self._started
        left = (self._told - since) / max(done - before, 1) * (total - done)
        loss = f", {self._loss}" if self._loss else ""
        click.echo(f"{printable(self._name)}: {done} of {total}{loss}, {left / 60:.1f} minutes left", err=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar, self._name = None, ""
