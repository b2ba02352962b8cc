"""A bundle's pictures on the disk: reading what is there now, and changing it.

Other processes may add, remove and compact while this one searches. What they committed is seen by the next search: a
look at the store's version costs microseconds. Who changes something holds the store's write lock; who puts a compacted
bundle in the place of the old one holds the bundle's lock alone (see `lock`), so that nobody opens half of each.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pocketlens.bundle import MANIFEST, BundleManifest, read_bundle
from pocketlens.contents import Contents
from pocketlens.errors import BadQuery, Busy, FormatError, NotWritten, PocketlensError
from pocketlens.files import restore_folder
from pocketlens.forks import Process
from pocketlens.gallery import Gallery
from pocketlens.local import (
    FILES,
    NAME,
    NOTHING,
    Base,
    Local,
    Store,
    create_store,
    read_alone,
    remove_stale,
    signature,
)  # fmt: skip
from pocketlens.lock import hold, try_hold

T = TypeVar("T")
_ATTEMPTS = 5  # to change a bundle that is compacted again and again


class Collection:
    """An opened bundle's gallery with its additions. It may be used from several threads.

    Args:
        folder: the bundle.
        threads: threads of one search.

    Attributes:
        folder: as given.
        process: the process that opened it; no fork of it may use it.

    Raises:
        FormatError: it is no bundle of a known version, or local.sqlite belongs to another gallery.
        CorruptFile: a file differs from its record, or a row of local.sqlite is damaged.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.folder = folder
        self.process = Process()
        self._threads = threads
        self._lock = threading.RLock()
        self._closed = self._is_another = False
        self._store: Store | None = None
        self._version = -1
        self._read_alone: tuple[tuple[int, int], ...] | None = None  # the store's signature, where it is not kept open
        restore_folder(folder)
        if not (folder / MANIFEST).is_file():
            read_bundle(folder)  # says best what is no bundle
        with hold(folder):
            self._seen = _identity(folder)
            self._manifest = read_bundle(folder)
            self._gallery = self._open_gallery(self._manifest)
        self._forget()

    @property
    def gallery(self) -> Gallery:
        """The shipped gallery, as it was opened last."""
        return self._gallery

    @property
    def manifest(self) -> BundleManifest:
        """The bundle.json that was read last."""
        return self._manifest

    def now(self) -> Contents:
        """Return what the bundle contains now.

        Raises:
            BadQuery: the collection is closed.
            CorruptFile: a row of local.sqlite is damaged.
            Forked: this process is a fork of the one that opened it.
        """
        self.process.check(str(self.folder))
        with self._lock:
            if self._closed:
                raise BadQuery(f"{self.folder}: this collection is closed")
            self._follow()
            if self._is_another:
                return self._contents
            try:
                self._refresh()
            except FormatError:
                if _identity(self.folder) in (self._seen, None):
                    raise
                self._follow()  # compacted between the two looks
                if not self._is_another:
                    self._refresh()
            return self._contents

    def change(self, write: Callable[[Gallery, Store], T]) -> T:
        """Return what `write` returns, after all that it changed in the store was committed; or nothing was.

        Args:
            write: may be called again, when the bundle was compacted meanwhile.

        Raises:
            Busy: another process was changing the bundle all the time.
            FormatError: another bundle has taken its place (NotWritten: the disk is full, read-only or failing).
            Forked: this process is a fork of the one that opened it.
        """
        self.process.check(str(self.folder))
        for _ in range(_ATTEMPTS):
            with self._lock:
                self.check_place()
                base, gallery = _base(self._manifest), self._gallery
            with self._opened_store(base) as store:
                if store is None:
                    continue
                with suppress(_Moved), store.transaction():
                    if read_bundle(self.folder).gallery != base.gallery:
                        raise _Moved
                    return write(gallery, store)
        raise Busy(f"{self.folder} was replaced again and again; try again")

    def check_place(self) -> None:
        """Raise `FormatError` when a bundle with other towers has taken the place of this one."""
        with self._lock:
            self._follow()
            if self._is_another:
                raise FormatError(f"{self.folder} is another bundle now, with other towers; open it again")

    def tidy(self) -> None:
        """Remove what a crash left of making a store, unless there is one or somebody holds the bundle."""
        with suppress(OSError), try_hold(self.folder) as held:
            if held and not (self.folder / NAME).exists():
                remove_stale(self.folder)

    def close(self) -> None:
        """Release the gallery and the store. In a fork there is nothing to release."""
        if not self.process.is_here:
            return
        with self._lock:
            self._closed = True
            self._forget()
            self._gallery.close()

    def _open_gallery(self, manifest: BundleManifest) -> Gallery:
        return Gallery.open(self.folder / "gallery", manifest_sha256=manifest.gallery, threads=self._threads)

    def _follow(self) -> None:
        """Open the gallery that has taken the place of this one, if it only holds the additions too.

        A bundle with other towers or of another space is another one; who wants it opens it, and this one stays at
        what it saw last.
        """
        found = _identity(self.folder)
        if found in (self._seen, None):
            return
        with hold(self.folder):
            found, manifest = _identity(self.folder), read_bundle(self.folder)
            self._is_another = _towers(manifest) != _towers(self._manifest)
            if not self._is_another and manifest.gallery != self._manifest.gallery:
                weakref.finalize(self._gallery, self._gallery.items.close)  # with the last search in it
                self._gallery = self._open_gallery(manifest)
                self._manifest = manifest
                self._forget()
            self._seen = found

    def _refresh(self) -> None:
        if self._store is None:
            if not (self.folder / NAME).exists() or signature(self.folder) == self._read_alone:
                return
            with hold(self.folder):
                self._open_store()
        if self._store is None:
            return
        version = self._store.version()
        if version != self._version:
            self._contents = Contents(self._gallery, self._store.read())
            self._version = version

    def _open_store(self) -> None:
        base = _base(self._manifest)
        before = signature(self.folder)  # who commits after this is noticed
        try:
            self._store = Store(self.folder, base)
        except NotWritten:  # the disk is full, and searching needs no room
            self._contents = Contents(self._gallery, read_alone(self.folder, base))
            self._read_alone = before
            return
        self._version, self._read_alone = self._store.version(), None
        self._contents = Contents(self._gallery, self._store.read())

    def _forget(self) -> None:
        store, self._store, self._version, self._read_alone = self._store, None, -1, None
        self._contents = Contents(self._gallery, NOTHING)
        if store is not None:
            _close(store, self.folder)

    @contextmanager
    def _opened_store(self, base: Base) -> Iterator[Store | None]:
        """Yield a connection of its own to the store, which is made when it is missing; None: of another gallery."""
        store = None if (self.folder / NAME).exists() else self._make_store(base)
        if store is None:
            with hold(self.folder):
                moved = read_bundle(self.folder).gallery != base.gallery
                store = None if moved else Store(self.folder, base)
        try:
            yield store
        finally:
            if store is not None:
                _close(store, self.folder)

    def _make_store(self, base: Base) -> Store | None:
        """Return the store, made and opened, or None: there is one, or another gallery. A full disk leaves none."""
        with hold(self.folder, alone=True):
            if read_bundle(self.folder).gallery != base.gallery or (self.folder / NAME).exists():
                return None
            create_store(self.folder, base)
            try:
                return Store(self.folder, base)
            except PocketlensError:
                for name in FILES:
                    (self.folder / name).unlink(missing_ok=True)
                raise


def read_local(folder: Path) -> Local:
    """Return what a device added to a bundle and removed from it, with every row checked.

    Raises:
        FormatError: it is no bundle, or local.sqlite belongs to another gallery.
        CorruptFile: a row of local.sqlite is damaged.
    """
    with hold(folder):
        manifest = read_bundle(folder)
        if not (folder / NAME).exists():
            return NOTHING
        try:
            with closing(Store(folder, _base(manifest))) as store:
                return store.read()
        except NotWritten:
            return read_alone(folder, _base(manifest))


class _Moved(Exception):
    """Another bundle has taken this one's place."""


def _base(manifest: BundleManifest) -> Base:
    return Base(manifest.gallery, manifest.space.id, manifest.space.dim)


def _towers(manifest: BundleManifest) -> tuple[object, ...]:
    return (manifest.space, manifest.text, manifest.image)


def _identity(folder: Path) -> tuple[int, ...] | None:
    """Return what tells the bundle at this path from one that takes its place; None where there is none."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _close(store: Store, folder: Path) -> None:
    """Close a store so that SQLite, which removes its journal by name, finds no other bundle's in its place."""
    try:
        with hold(folder):
            store.close()
    except PocketlensError:  # the bundle is gone, or somebody keeps it
        store.close()
