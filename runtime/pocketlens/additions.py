"""Adding pictures to a bundle on the device, and removing items from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Uint8s
from pocketlens.attributes import check_values, record
from pocketlens.codes import to_units
from pocketlens.collection import Collection
from pocketlens.decoders import DEVICE, Limits
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import BadImage, BadQuery
from pocketlens.gallery import Gallery
from pocketlens.items import Item
from pocketlens.local import NO_ROW, Addition, Store
from pocketlens.model import Model
from pocketlens.picture import load_upright, preprocess, read_picture

BATCH = 16  # pictures that are encoded together and committed together
MAX_ID = 1_024  # characters

Content = bytes | str | Path


@dataclass(slots=True)
class Added:
    """What became of the pictures that were to be added, by id, in the order they were given.

    Attributes:
        added: new items.
        replaced: items whose file or attributes had changed.
        unchanged: items that were there already, with the same bytes.
        skipped: pictures that cannot be read, and why.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, BadImage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tower:
    """An opened image tower, which pictures it reads, and what its additions record of it."""

    encoder: ImageEncoder
    limits: Limits
    name: str
    graph_sha256: str

    @classmethod
    def of(cls, model: Model, encoder: ImageEncoder, limits: Limits = DEVICE) -> Tower:
        """Return the tower of a model whose encoder is open."""
        return cls(encoder, limits, model.manifest.name, model.manifest.files[encoder.spec.file].sha256)


def add_pictures(
    collection: Collection,
    pictures: Mapping[str, Content],
    tower: Tower,
    *,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Added:
    """Add pictures to a bundle, or replace those that changed; return what became of each.

    Pictures are committed 16 at a time. What was committed is kept whatever happens next.

    Args:
        collection: the opened bundle.
        pictures: by id: the bytes of a picture file, or its path.
        tower: encodes them; it must be of the gallery's space.
        attributes: of items, by id, as the gallery's schema has them. A picture without any keeps those that an item of
            its id has.
        on_progress: called with (pictures done, pictures in all).

    Raises:
        BadQuery: an id is empty, too long or no text, a picture is neither bytes nor a path, attributes are given for
            a picture that is not, or one is not in the schema or of another type.
        Busy: another process was changing the bundle all the time.
        FormatError: the bundle cannot be written.
    """
    for id, picture in pictures.items():
        check_id(id)
        if not isinstance(picture, bytes | str | Path):
            raise BadQuery(f"the picture of {id!r} is of type {type(picture).__name__}, expected its bytes or its path")
    schema = collection.gallery.manifest.attributes
    given = {id: check_values(schema, values, of=id) for id, values in (attributes or {}).items()}
    if strange := sorted(given.keys() - pictures.keys()):
        raise BadQuery(f"attributes are given for {strange[0]!r}, which is not among the pictures")
    result, waiting, done = Added(), iter(pictures.items()), 0
    while batch := list(islice(waiting, BATCH)):
        _add_batch(collection, dict(batch), tower, given, result)
        done += len(batch)
        on_progress(done, len(pictures))
    return result


def remove_items(collection: Collection, ids: Sequence[str]) -> None:
    """Remove items from a bundle, all of them or none.

    Raises:
        BadQuery: there is no item of one of these ids.
        Busy: another process was changing the bundle all the time.
        FormatError: the bundle cannot be written.
    """
    if isinstance(ids, str):
        raise BadQuery("remove takes a list of ids, found a single str")
    for id in ids:
        check_id(id)

    def write(gallery: Gallery, store: Store) -> None:
        shipped = gallery.items.numbers_of(ids)
        for id in dict.fromkeys(ids):
            if not store.has_added(id) and (id not in shipped or store.has_removed(id)):
                raise BadQuery(f"no item has the id {id!r}; nothing was removed")
            store.drop(id)
            if id in shipped:
                store.remove(id)

    collection.change(write)


def check_id(id: Any) -> None:
    """Raise `BadQuery` unless `id` is a text of 1 to 1,024 characters that UTF-8 can hold, without NUL."""
    if not isinstance(id, str):
        raise BadQuery(f"an item's id is of type {type(id).__name__}, expected a str")
    if not 0 < len(id) <= MAX_ID or "\0" in id:
        raise BadQuery(f"{id[:60]!r} cannot be an item's id: expected 1 to {MAX_ID} characters, none of them NUL")
    try:
        id.encode()
    except UnicodeEncodeError as error:
        raise BadQuery(f"{id!r} cannot be an item's id: UTF-8 cannot hold it") from error


@dataclass(frozen=True, slots=True)
class _Loaded:
    item: Item
    pixels: Uint8s


def _add_batch(
    collection: Collection,
    pictures: Mapping[str, Content],
    tower: Tower,
    attributes: Mapping[str, dict[str, Any]],
    result: Added,
) -> None:
    known = collection.now().find_all(pictures)
    loaded: list[_Loaded] = []
    for id, picture in pictures.items():
        try:
            content = picture if isinstance(picture, bytes) else read_picture(picture, limits=tower.limits)
            there = known.get(id)
            sha256 = hashlib.sha256(content).hexdigest()
            if there is not None and there.sha256 == sha256 and says(there, attributes.get(id)):
                result.unchanged.append(id)
                continue
            upright = load_upright(content, side=tower.encoder.spec.side, limits=tower.limits)
        except BadImage as error:
            result.skipped[id] = error
            continue
        values = record(attributes.get(id, _kept(there, upright.taken)), size_bytes=len(content), taken=upright.taken)
        item = Item(id, NO_ROW, id, upright.width, upright.height, sha256, values, tower.name)
        loaded.append(_Loaded(item, preprocess(upright.image, tower.encoder.spec)))
    if not loaded:
        return
    vectors = to_units(tower.encoder.encode_pixels(np.stack([one.pixels for one in loaded]))).astype(np.float16)
    additions = [Addition(one.item, tower.graph_sha256, vector) for one, vector in zip(loaded, vectors, strict=True)]

    def write(gallery: Gallery, store: Store) -> None:
        for addition in additions:
            store.put(addition)

    collection.change(write)
    for one in loaded:
        (result.replaced if one.item.id in known else result.added).append(one.item.id)


def says(there: Item, given: Mapping[str, Any] | None) -> bool:
    """Return whether an item has just these attributes, in their one form, beside what its file says; None: any."""
    if given is None:
        return True
    file = {"size_bytes"} if "taken" in given else {"size_bytes", "taken"}
    return {name: value for name, value in there.attributes.items() if name not in file} == given


def _kept(there: Item | None, taken: str | None) -> dict[str, Any]:
    """Return the attributes that a picture in an item's place keeps; its own time goes before the item's."""
    if there is None:
        return {}
    return {name: value for name, value in there.attributes.items() if name != "taken" or taken is None}
