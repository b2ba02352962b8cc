"""The command `pocketlens pack`."""

from __future__ import annotations

from pathlib import Path

import click

from pocketlens.errors import FormatError

_FOLDER = click.Path(path_type=Path)


@click.command(short_help="Put a bundle together from parts.")
@click.option("--gallery", required=True, type=_FOLDER, help="A gallery folder, or the gallery/ of a bundle.")
@click.option("--text", "text_model", help="Model whose text tower the bundle gets: a folder or a shipped name.")
@click.option("--image", "image_model", help="Model whose image tower the bundle gets: a folder or a shipped name.")
@click.option("--out", required=True, type=_FOLDER, help="The bundle folder to write.")
@click.option("--replace", is_flag=True, help="Replace BUNDLE when it exists.")
def pack(gallery: Path, text_model: str | None, image_model: str | None, out: Path, replace: bool) -> None:
    """Put a bundle together from a gallery and the towers of one or two models of its space."""
    from pocketlens.model import Model, find_model
    from pocketlens_export.gallery.build import pack_bundle

    if not text_model and not image_model:
        raise click.UsageError("give --text MODEL, --image MODEL, or both")
    if out.exists() and not replace:
        raise FormatError(f"{out} exists already; give --replace or choose another name")
    text = Model.open(find_model(text_model)) if text_model else None
    image = Model.open(find_model(image_model)) if image_model else None
    pack_bundle(out, gallery=gallery, text=text, image=image, replace=replace)
    click.echo(f"{out}: a bundle of {gallery}")
