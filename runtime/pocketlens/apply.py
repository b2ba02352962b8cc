"""Applying an update file: the next generation of a bundle's gallery, in a new bundle that takes the old one's place.

What the generations share is not written again: the new folder has the same files under a second name. What the device
itself added and removed goes along. The store's write lock is held from the first look to the switch, as in `compact`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pocketlens.bundle import seal_bundle, share_towers
from pocketlens.collection import Collection
from pocketlens.contents import Contents
from pocketlens.errors import FormatError, WrongBase
from pocketlens.files import new_folder, share_file
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import Gallery, GalleryManifest, open_manifest
from pocketlens.local import FILES, Base, Local, Store, create_store
from pocketlens.update import UpdateFile


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying an update did: the generation before and now, which are equal when there was nothing to do."""

    before: int
    generation: int
    items: int


def apply(
    collection: Collection, update: Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Applied:
    """Bring a bundle's gallery to the generation that an update file leads to, exactly as the server has it.

    A crash at any moment leaves the old bundle or the new one, either with what the device added and removed. When the
    bundle holds that generation already, nothing is done. The disk needs room for what the update brings.

    Args:
        collection: the opened bundle; it follows to the new one when it is asked next.
        update: the file.
        on_progress: called with (bytes checked, bytes in all).

    Raises:
        WrongBase: the update leads on from another generation than the bundle holds.
        FormatError: `update` is no such file (CorruptFile: it is damaged, or a file of the bundle is; NotWritten: the
            bundle cannot be written).
        Busy: another process was changing the bundle all the time, or kept it open.
    """
    folder = collection.folder.resolve()  # a link to a bundle goes on showing there
    with UpdateFile(update) as file:
        collection.check_place()
        contents = collection.now()
        if collection.manifest.gallery == file.manifest.next.sha256:
            return Applied(file.manifest.next.number, file.manifest.next.number, contents.count)
        _check_base(file, folder, collection.manifest.gallery, contents.gallery.manifest)

        def write(gallery: Gallery, store: Store) -> int:
            _check_base(file, folder, collection.manifest.gallery, gallery.manifest)
            with new_folder(folder, replace=True, dropping=FILES) as new:
                return _write_bundle(file, gallery.manifest, store.read(), folder, new, on_progress)

        items = collection.change(write)
        return Applied(file.manifest.base.number, file.manifest.next.number, items)


def _check_base(update: UpdateFile, bundle: Path, sha256: str, found: GalleryManifest) -> None:
    base, next = update.manifest.base, update.manifest.next
    if sha256 != base.sha256:
        why = "another gallery of that number" if found.generation == base.number else "not the one it leads on from"
        raise WrongBase(
            f"{update.path} leads from generation {base.number} ({base.sha256[:16]}…) to {next.number}, but {bundle} "
            f"holds generation {found.generation} ({sha256[:16]}…), {why}; it stays as it is",
            found=found.generation,
            expected=base.number,
        )


def _write_bundle(
    update: UpdateFile,
    before: GalleryManifest,
    local: Local,
    old: Path,
    new: Path,
    on_progress: Callable[[int, int], None],
) -> int:
    """Write the next bundle into a new folder; return how many items it has."""
    folder = new / "gallery"
    folder.mkdir()
    _extract(update, GALLERY_MANIFEST, folder)
    manifest = open_manifest(folder, manifest_sha256=update.manifest.next.sha256)
    _check_continues(update, before, manifest)
    for name in before.files:
        share_file(old / "gallery" / name, folder / name)
    for name in manifest.files.keys() - before.files.keys():
        _extract(update, name, folder)
    share_towers(old, new)
    seal_bundle(new)
    base = Base(update.manifest.next.sha256, manifest.space.id, manifest.space.dim)
    with closing(Gallery.open(folder, on_progress=on_progress)) as gallery:  # all must be right before the switch
        _carry(local, gallery, new, base)
        return Contents(gallery, local).count


def _check_continues(update: UpdateFile, before: GalleryManifest, after: GalleryManifest) -> None:
    """Raise `FormatError` unless a generation has all that an earlier one has, and the update has the rest."""
    same = all(getattr(before, name) == getattr(after, name) for name in ("model", "space", "rescore", "attributes"))
    kept = before.files.items() <= after.files.items() and after.segments[: len(before.segments)] == before.segments
    brought = {GALLERY_MANIFEST, *(after.files.keys() - before.files.keys())} == update.manifest.files.keys()
    base, next = update.manifest.base, update.manifest.next
    chained = after.generation == next.number and after.previous.get(str(base.number)) == base.sha256
    if not (same and kept and brought and chained):
        raise FormatError(f"{update.path}: generation {next.number} does not continue generation {base.number}")


def _extract(update: UpdateFile, name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("xb") as file:  # synced with the folder
        for chunk in update.read(name):
            file.write(chunk)


def _carry(local: Local, gallery: Gallery, bundle: Path, base: Base) -> None:
    """Write what the device added, and removed of what is still shipped, into the bundle of a later generation."""
    removed = gallery.items.numbers_of(local.removed)
    if not local.additions and not removed:
        return
    create_store(bundle, base)
    with closing(Store(bundle, base)) as store, store.transaction():
        for addition in local.additions.values():
            store.put(addition)
        for id in removed:
            store.remove(id)
