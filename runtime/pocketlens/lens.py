"""Opening a bundle and asking it: encode the query, search the codes, show the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from pocketlens._types import Float32s
from pocketlens.additions import Added, Content, add_pictures, remove_items
from pocketlens.apply import Applied, apply
from pocketlens.bundle import check_space
from pocketlens.codes import read_vector
from pocketlens.collection import Collection
from pocketlens.compact import Compacted, compact
from pocketlens.compose.method import Value
from pocketlens.compose.weights import LEAST_NORM
from pocketlens.contents import Contents
from pocketlens.decoders import DEVICE, Limits, with_formats
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import BadQuery
from pocketlens.filter import parse_filter
from pocketlens.gallery import Gallery
from pocketlens.graph import check_threads
from pocketlens.hits import Hit, Hits
from pocketlens.items import Item
from pocketlens.listing import name_pictures
from pocketlens.model import Model
from pocketlens.parts import GivenPart, Part, read_parts, shorthand
from pocketlens.picture import Picture
from pocketlens.plan import plan_query, reason_for_one
from pocketlens.selection import Selected, Selection
from pocketlens.towers import Towers


class Lens:
    """An opened bundle. Towers are opened when first needed: a text query loads only the text tower.

    One lens may be used from several threads. Use it as a context manager, or `close` it. A process that forks keeps
    it; the fork gets `Forked` and opens the bundle itself.
    """

    def __init__(
        self,
        collection: Collection,
        text: Model | None,
        image: Model | None,
        *,
        threads: int | None,
        limits: Limits = DEVICE,
    ) -> None:
        self._collection = collection
        self._towers = Towers(
            text, image, threads=threads, limits=limits,
            check=self._check_open, before_opening=collection.check_place,
        )  # fmt: skip
        self._closed = False

    @property
    def gallery(self) -> Gallery:
        """The shipped gallery, without what the device added."""
        self._collection.process.check("this lens")
        return self._collection.gallery

    @property
    def attributes(self) -> dict[str, str]:
        """What a filter may ask for: the types of the items' attributes, by name."""
        return dict(self.gallery.manifest.attributes)

    def search(
        self,
        *,
        text: str | None = None,
        image: Picture | None = None,
        negative: str | Sequence[str] | None = None,
        parts: Sequence[GivenPart] | None = None,
        method: str = "auto",
        parameters: Mapping[str, Value] | None = None,
        where: Mapping[str, Any] | None = None,
        k: int = 10,
        min_z: float | None = None,
        min_margin: float | None = None,
        diverse: bool = False,
    ) -> Hits:
        """Return the k pictures nearest to a text, a picture, or a picture as the text says, best first.

        Args:
            text: what to look for.
            image: a picture as bytes, path or PIL image.
            negative: texts of what is not wanted.
            parts: instead of these three, `(kind, value)` or `(kind, value, weight)` each, with kind "text" or "image"
                and a weight from 0.001 to 100 (1 unless given), with a minus for what is not wanted.
            method: how to compose a query of several parts; see `pocketlens methods`. "auto" takes what was measured
                best of what the bundle has.
            parameters: values of the method's parameters; those left out take their defaults.
            where: a filter, such as `{"year": {"gte": 2020}, "tag": {"in": ["beach", "sea"]}}`: only items that it lets
                through are looked at; docs/filters.md tells all of it, `attributes` what there is. The answer is that
                of an exhaustive search over them; z stays that of the whole gallery.
            k: how many hits, 1 to 1,000; fewer come back only when there are fewer such items, or what follows leaves
                some out.
            min_z, min_margin: leave hits out whose z or margin is lower; docs/scores.md tells how to choose them.
            diverse: show one of each set of near-duplicates, the best hit: pictures at a cosine of 0.97 or above.

        Raises:
            BadQuery: nothing is wanted, a part or a parameter is wrong, parts cancel out, the method is unknown or
                needs a part that the query lacks, the filter is none or asks for what the gallery lacks, k, min_z or
                min_margin is out of range, or the lens is closed.
            BadImage: a picture cannot be decoded.
            MissingPart: the bundle lacks a tower that the query needs, its tokenizer, or what the method needs.
            EncoderMismatch: the method's network was trained on the features of another image tower.
        """
        self._check_open()
        selection = Selection(k, min_z, min_margin, diverse)
        if parts is not None and not (text is image is negative is None):
            raise BadQuery("give parts, or text, image and negative; found both")
        read = shorthand(text, image, negative) if parts is None else read_parts(parts)
        contents = self._contents(where)
        if len(read) == 1 and method in ("auto", read[0].kind) and not parameters:
            value = read[0].value
            vector = self.encode(text=str(value)) if read[0].kind == "text" else self.encode(image=value)
            hits = self._nearest(contents, vector, selection)
            return Hits(hits, method=read[0].kind, why=reason_for_one(read[0], method))
        return self._search_composed(contents, read, method, parameters, selection)

    def similar(
        self,
        id: str,
        *,
        where: Mapping[str, Any] | None = None,
        k: int = 10,
        min_z: float | None = None,
        min_margin: float | None = None,
        diverse: bool = False,
    ) -> Hits:
        """Return the k pictures most like one of the gallery's own, best first, without encoding anything.

        The item itself is left out; exact copies of it are hits, unless `diverse` hides them.

        Args:
            id: the item's.
            where: see `search`. It need not let the item itself through.
            k: how many hits, 1 to 1,000; at most 999 rows other than the item's are looked at.
            min_z, min_margin, diverse: see `search`. The item itself counts as the best hit, ranked first.

        Raises:
            BadQuery: no item has this id, the filter is none or asks for what the gallery lacks, k, min_z or
                min_margin is out of range, or the lens is closed.
        """
        self._check_open()
        selection = Selection(k, min_z, min_margin, diverse)
        contents = self._contents(where)
        vectors = contents.vectors(np.array([contents.find(id).row]))  # (1, dim)
        hits = self._nearest(contents, vectors[0], selection.one_more(), shown=vectors)
        others = [hit for hit in hits if hit.id != id]
        return Hits(others[:k], method="image", why="the query is a picture of the gallery")

    def encode(self, *, text: str | None = None, image: Picture | None = None) -> Float32s:
        """Return a query's unit vector, float32 (dim,): of the sum of unit vectors when text and picture are given.

        It is what the methods image, text and sum search with; other methods may need more than one vector.
        """
        vectors = [self._towers.encode(part) for part in shorthand(text, image, None)]
        total = np.sum(vectors, axis=0)
        norm = float(np.linalg.norm(total))
        if norm < LEAST_NORM:
            raise BadQuery("the text and the picture cancel out: their sum has no direction")
        return np.asarray(total / norm, dtype=np.float32)

    def search_vector(
        self,
        vector: Float32s,
        *,
        where: Mapping[str, Any] | None = None,
        k: int = 10,
        min_z: float | None = None,
        min_margin: float | None = None,
        diverse: bool = False,
    ) -> list[Hit]:
        """Return the k pictures nearest to a query vector, float32 (dim,), in the gallery's space; see `search`."""
        self._check_open()
        vector = read_vector(vector, self.gallery.manifest.space.dim)
        return self._nearest(self._contents(where), vector, Selection(k, min_z, min_margin, diverse))

    def add(
        self,
        pictures: Sequence[str | Path] | Mapping[str, Content],
        *,
        root: str | Path | None = None,
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
        image_model: Model | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Added:
        """Add pictures to the bundle; every search sees them at once. Those that are there already are left alone.

        Args:
            pictures: paths of picture files, or the bytes or the path of each by the id it gets.
            root: the folder that the ids of paths start from; without it, an id is the file's name.
            attributes: of items, by id, as the gallery's `attributes` has them. A picture without any keeps those that
                an item of its id has; its size, its folder and the time it was taken are recorded as well.
            image_model: whose image tower encodes the pictures; by default the bundle's.
            on_progress: called with (pictures done, pictures in all).

        Raises:
            BadQuery: an id is no text of 1 to 1,024 characters, a picture is not below `root`, two get the same id,
                attributes are given for another one, or one is not in the gallery's schema or of another type.
            MissingPart: there is no image tower.
            EncoderMismatch: `image_model` is not of the gallery's space.
            Busy: another process was changing the bundle all the time.
            FormatError: the bundle cannot be written.
        """
        self._check_open()
        named = pictures if isinstance(pictures, Mapping) else name_pictures(pictures, root=root)
        tower = self._towers.for_adding(image_model, self.gallery)
        return add_pictures(self._collection, named, tower, attributes=attributes, on_progress=on_progress)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove items from the bundle, all of them or none; no search sees them any more.

        Raises:
            BadQuery: there is no item of one of these ids.
            Busy: another process was changing the bundle all the time.
            FormatError: the bundle cannot be written.
        """
        self._check_open()
        remove_items(self._collection, ids)

    def compact(self, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Compacted:
        """Make a new gallery of what the bundle contains now; see `pocketlens.compact.compact`."""
        self._check_open()
        return compact(self._collection, on_progress=on_progress)

    def apply(
        self, update: str | Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Applied:
        """Bring the gallery to the generation that an update file leads to; see `pocketlens.apply.apply`."""
        self._check_open()
        return apply(self._collection, Path(update), on_progress=on_progress)

    def text_encoder(self) -> TextEncoder:
        """Return the text encoder, opened on the first call.

        Raises:
            MissingPart: the bundle has no text tower, or no tokenizer for it.
        """
        return self._towers.text()

    def image_encoder(self) -> ImageEncoder:
        """Return the image encoder, opened on the first call.

        Raises:
            MissingPart: the bundle has no image tower.
        """
        return self._towers.image()

    def has_tower(self, tower: Literal["text", "image"]) -> bool:
        """Return whether the bundle can encode texts (which takes a tokenizer too), or pictures."""
        return self._towers.has(tower)

    def close(self) -> None:
        """Release the gallery and the encoders; later queries raise `BadQuery`. In a fork it does nothing."""
        if not self._collection.process.is_here:
            return
        self._closed = True
        self._towers.close()
        self._collection.close()

    def __enter__(self) -> Lens:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _nearest(
        self, contents: Contents, vector: Float32s, selection: Selection, *, shown: Float32s | None = None
    ) -> list[Hit]:
        selected = selection.among(contents, lambda k: contents.nearest(vector, k=k), shown=shown)
        return self._hits(contents, selected, selection)

    def _search_composed(
        self,
        contents: Contents,
        parts: list[Part],
        name: str,
        parameters: Mapping[str, Value] | None,
        selection: Selection,
    ) -> Hits:
        text, image = (None if model is None else model.manifest for model in self._towers.models.values())
        plan = plan_query(parts, name, parameters, text, image)
        kit = self._towers.ingredients(contents.gallery)

        def encode(part: Part) -> Float32s:
            if isinstance(part.value, str) and part.kind == "text":
                return np.asarray(kit.encode_texts([part.value])[0])
            return kit.encode_picture(part.value, self._towers.encode_picture)

        def see(part: Part) -> tuple[Float32s, Float32s]:
            return kit.see_picture(part.value, self._towers.see_picture)

        composed = plan.compose(kit, encode, see)
        if composed.fuse is None:
            hits = self._nearest(contents, composed.vectors[0], selection)
        else:
            selected = selection.among(contents, lambda k: contents.fused(composed, k=k))
            hits = self._hits(contents, selected, selection)
        return Hits(hits, method=plan.method.name, why=plan.why, parameters=plan.values, names=composed.names)

    def _hits(self, contents: Contents, selected: Selected, selection: Selection) -> list[Hit]:
        found, hits = selected.found, []
        columns = (found.scores, found.cosines, found.z_scores, selected.margins)
        for row, *of_row in zip(found.rows, *columns, strict=True):
            score, cosine, z, margin = map(float, of_row)
            items = self._items(contents, int(row))  # exact duplicates share a row
            for item in items[:1] if selection.diverse else items:
                shown = (item.width, item.height, item.attributes)
                hits.append(Hit(item.id, item.uri, score, cosine, z, margin, *shown))
        return hits[: selection.k]

    def _items(self, contents: Contents, row: int) -> list[Item]:
        try:
            return contents.of_row(row)
        except BadQuery:  # the database is closed
            self._check_open()
            raise

    def _contents(self, where: Mapping[str, Any] | None) -> Contents:
        self._check_open()
        contents = self._collection.now()
        return contents if where is None else contents.where(parse_filter(where, contents.gallery.manifest.attributes))

    def _check_open(self) -> None:
        self._collection.process.check("this lens")
        if self._closed:
            raise BadQuery("this lens is closed")


def open_lens(path: str | Path, *, threads: int | None = None, formats: Sequence[str] = ()) -> Lens:
    """Open a bundle and check it from bundle.json down; towers are checked when first used.

    Args:
        path: a bundle folder made by `pocketlens index` or `pocketlens pack`.
        threads: threads of an encoder and of a search; by default an encoder takes the usable cores, at most 4, and a
            search 1.
        formats: picture formats that queries may have beside JPEG, PNG and WebP: gif, bmp, tiff, avif, heic.

    Raises:
        BadQuery: `threads` is no integer from 1 on, or a format is none of these.
        MissingPart: this installation cannot decode one of the formats.
        FormatError: not a bundle of a known version, or part of it is missing.
        CorruptFile: a file differs from its record.
        EncoderMismatch: a tower is not of the gallery's space.
    """
    check_threads(threads)
    limits = with_formats(DEVICE, formats)
    folder = Path(path)
    collection = Collection(folder, threads=1 if threads is None else threads)
    try:
        collection.now()  # checks what the device added
        manifest = collection.manifest
        text = Model.open(folder / "text", manifest_sha256=manifest.text) if manifest.text else None
        image = Model.open(folder / "image", manifest_sha256=manifest.image) if manifest.image else None
        for model in filter(None, (text, image)):
            check_space(model, manifest.space)
    except BaseException:
        collection.close()
        raise
    return Lens(collection, text, image, threads=threads, limits=limits)
