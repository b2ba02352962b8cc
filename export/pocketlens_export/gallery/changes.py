"""What of some sources is new or changed since a gallery was made, told by ids and by the bytes of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Bools
from pocketlens.additions import says
from pocketlens.attributes import canonical
from pocketlens.decoders import Limits
from pocketlens.errors import BadImage, FormatError
from pocketlens.gallery import Gallery
from pocketlens.items import Item, stream_ids
from pocketlens.listing import Skipped
from pocketlens.picture import read_picture
from pocketlens.segment_files import ITEMS, segment_folder
from pocketlens_export.gallery.scan import read_span
from pocketlens_export.gallery.sources.entry import REPEATED, Entry, Place, Source, hidden_below, is_of_its_id
from pocketlens_export.gallery.sources.parquet import RowReader

_BLOCK = 500  # entries
_OF_FILE = ("size_bytes", "taken")


@dataclass(slots=True)
class Seen:
    """What was met of a gallery's items.

    Attributes:
        items: bool (items,), by their numbers; also of what a source has and that cannot be read.
        unchanged: how many have the same bytes and attributes.
    """

    items: Bools
    unchanged: int = 0


class Changed:
    """A source, without what a gallery has already: the same id with the same bytes and attributes.

    Args:
        source: where pictures come from.
        gallery: the opened gallery.
        items: the databases of its items.
        seen: takes note of what is met.
        listed: bool (items,), takes note of which an entry that was not skipped is of.
        given: attributes by id, beside those that the source has.
        limits: which pictures are read.
    """

    def __init__(
        self,
        source: Source,
        gallery: Gallery,
        items: Sequence[Path],
        seen: Seen,
        listed: Bools,
        given: Mapping[str, Mapping[str, Any]],
        limits: Limits,
    ) -> None:
        self._source, self._gallery, self._items = source, gallery, items
        self._seen, self._listed = seen, listed
        self._given, self._limits = given, limits
        self._rows = RowReader()

    @property
    def name(self) -> str:
        """Return the source's absolute path."""
        return self._source.name

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield what is new or changed, and what is passed over; see `Source.entries`."""
        following = iter(self._source.entries())
        while block := list(islice(following, _BLOCK)):
            known = (entry.id for entry in block if isinstance(entry, Entry) or is_of_its_id(entry))
            numbers = self._gallery.items.numbers_of(known)
            for entry in block:
                if isinstance(entry, Skipped):
                    self._keep(entry, numbers)
                    yield entry
                elif entry.id in numbers:
                    yield from self._compared(entry, numbers[entry.id])
                else:
                    yield entry

    def _keep(self, skipped: Skipped, numbers: Mapping[str, int]) -> None:
        """Take note of the items that a skipped entry stands for."""
        if skipped.id in numbers and is_of_its_id(skipped):
            self._seen.items[numbers[skipped.id]] = True
        below = hidden_below(skipped)
        ids = iter(()) if below is None else chain.from_iterable(stream_ids(path, below) for path in self._items)
        while block := list(islice(ids, _BLOCK)):
            self._seen.items[list(self._gallery.items.numbers_of(block).values())] = True

    def _compared(self, entry: Entry, number: int) -> Iterator[Entry | Skipped]:
        """Yield an entry whose id an item has, unless nothing has changed."""
        if self._listed[number]:
            yield Skipped(entry.id, REPEATED, f"{entry.uri} has the id of an earlier one")
            return
        self._listed[number] = self._seen.items[number] = True
        item = self._gallery.items.find(entry.id)
        if self._is_as_before(entry, item):
            self._seen.unchanged += 1
        else:
            yield self._with_attributes(entry, item)

    def _is_as_before(self, entry: Entry, item: Item) -> bool:
        schema = self._gallery.manifest.attributes
        told = {**entry.attributes, **self._given.get(entry.id, {})}
        if not told.keys() <= schema.keys():
            return False  # the plan tells what is wrong
        values = {name: canonical(name, schema[name], value, of=entry.id) for name, value in told.items()}
        kept = {name: value for name, value in values.items() if value is not None}
        return says(item, kept or None) and self._sha256(entry.place) == item.sha256

    def _with_attributes(self, entry: Entry, item: Item) -> Entry:
        """Return an entry with what is known of the item it replaces, where nothing else is told."""
        if entry.attributes or entry.id in self._given:
            return entry
        kept = {name: value for name, value in item.attributes.items() if name not in _OF_FILE}
        return replace(entry, attributes=kept)

    def _sha256(self, place: Place) -> str | None:
        """Return the hash of a picture's bytes; None where they cannot be read, of which the decoders tell."""
        try:
            if place.kind == "file":
                content = read_picture(Path(place.path), limits=self._limits)
            elif place.kind == "span":
                content = read_span(place.path, place.start, place.size_bytes, self._limits)
            else:
                content = self._rows.read(place)
        except (BadImage, FormatError, OSError):
            return None
        return hashlib.sha256(content).hexdigest()


def only_changed(
    sources: Sequence[Source],
    folder: Path,
    gallery: Gallery,
    given: Mapping[str, Mapping[str, Any]],
    limits: Limits,
) -> tuple[list[Source], Seen]:
    """Return sources of what is new or changed since a gallery was made, and what is noted while they are listed.

    Args:
        sources: where pictures come from.
        folder: the gallery's.
        gallery: the same, opened.
        given, limits: see `Changed`.
    """
    count = gallery.columns.count
    seen, listed = Seen(np.zeros(count, dtype=bool)), np.zeros(count, dtype=bool)
    items = [
        segment_folder(folder, number) / ITEMS
        for number, segment in enumerate(gallery.manifest.segments)
        if segment.index is not None
    ]
    return [Changed(source, gallery, items, seen, listed, given, limits) for source in sources], seen
