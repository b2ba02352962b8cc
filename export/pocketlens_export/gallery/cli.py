"""The command `pocketlens pack`: bundles from parts, and updates of bundles."""

from __future__ import annotations

from pathlib import Path

import click

from pocketlens.errors import FormatError

_FOLDER = click.Path(path_type=Path)


@click.command(short_help="Put a bundle together from parts, or write an update for devices.")
@click.argument("bundle", type=_FOLDER, required=False)
@click.option("--since", type=click.IntRange(1), metavar="GENERATION", help="Write what BUNDLE has since then.")
@click.option("--gallery", type=_FOLDER, help="A gallery folder, or the gallery/ of a bundle.")
@click.option("--text", "text_model", help="Model whose text tower the bundle gets: a folder or a shipped name.")
@click.option("--image", "image_model", help="Model whose image tower the bundle gets: a folder or a shipped name.")
@click.option("--out", required=True, type=_FOLDER, help="The bundle folder, or the update file, to write.")
@click.option("--replace", is_flag=True, help="Replace what is at --out.")
def pack(
    bundle: Path | None,
    since: int | None,
    gallery: Path | None,
    text_model: str | None,
    image_model: str | None,
    out: Path,
    replace: bool,
) -> None:
    """Put a bundle together from a gallery and the towers of one or two models of its space.

    Or write a small file that brings devices from an earlier generation of BUNDLE's gallery to the one that it holds
    now; pocketlens info BUNDLE says which it continues, and pocketlens apply takes the file in.

    \b
      pocketlens pack --gallery G --text lens-base --image lens-tiny --out my-bundle
      pocketlens pack my-bundle --since 3 --out since-3.update
    """  # noqa: D301  # click takes the escape itself
    from pocketlens.model import Model, find_model
    from pocketlens_export.gallery.build import pack_bundle

    if bundle is not None or since is not None:
        if bundle is None or since is None or gallery or text_model or image_model:
            raise click.UsageError("an update takes BUNDLE, --since GENERATION and --out FILE alone")
        _pack_update(bundle, since, out, replace)
        return
    if gallery is None:
        raise click.UsageError("give --gallery with --text or --image, or BUNDLE with --since")
    if not text_model and not image_model:
        raise click.UsageError("give --text MODEL, --image MODEL, or both")
    _check_free(out, replace)
    text = Model.open(find_model(text_model)) if text_model else None
    image = Model.open(find_model(image_model)) if image_model else None
    pack_bundle(out, gallery=gallery, text=text, image=image, replace=replace)
    click.echo(f"{out}: a bundle of {gallery}")


def _pack_update(bundle: Path, since: int, out: Path, replace: bool) -> None:
    from pocketlens.bundle import read_bundle
    from pocketlens.gallery import open_manifest
    from pocketlens.update import write_update

    _check_free(out, replace)
    sha256 = read_bundle(bundle).gallery
    update = write_update(bundle / "gallery", out, since=since, manifest_sha256=sha256)
    size, whole = out.stat().st_size, sum(each.size_bytes for each in open_manifest(bundle / "gallery").files.values())
    share = f"{size / 1e6:.2f} MB, {100 * size / whole:.1f} % of the gallery"
    click.echo(f"{out}: from generation {since} to {update.next.number}, {share}")


def _check_free(out: Path, replace: bool) -> None:
    if out.exists() and not replace:
        raise FormatError(f"{out} exists already; give --replace or choose another name")
