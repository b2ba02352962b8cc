"""Many towers ask one gallery, which the heavy tower has encoded: each picture is decoded once for all of them.

`asymmetric.compare` decodes every picture of the gallery for every tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
from PIL import Image

from pocketlens._types import Float32s
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder
from pocketlens.model import PictureSpec
from pocketlens.picture import decode, preprocess
from pocketlens_bench.asymmetric import Row, SetResults
from pocketlens_bench.asymmetric_figures import Scorer, answer
from pocketlens_bench.asymmetric_models import Entrant, Pair
from pocketlens_bench.asymmetric_sets import METRICS, QuerySet
from pocketlens_bench.progress import Progress
from pocketlens_bench.protocols.ranking import Pool
from pocketlens_export.embeddings import Embeddings
from pocketlens_export.views import take_view

_BATCH = 32
_VIEW_SEED = 0


def ask(
    queries: QuerySet,
    gallery: Embeddings,
    entrants: Sequence[Entrant],
    *,
    own: bool = False,
    threads: int,
    progress: Progress,
) -> tuple[SetResults, dict[str, Float32s]]:
    """Return what each tower finds over the heavy one's gallery, and what it made of the queries, by label.

    Args:
        queries: pictures of the gallery, or views of them.
        gallery: as the heavy tower sees it.
        entrants: the heavy one first.
        own: whether each asks a gallery that it has encoded itself, too.
        threads: of the encoders.
        progress: told of encoding.
    """
    heavy, *lights = entrants
    places = {id: row for row, id in enumerate(gallery.ids)}
    asked = [places[str(example.reference)] for example in queries.examples]
    shown = _view if queries.asked == "view" else _picture
    vectors = encode(gallery, asked, shown, entrants, threads=threads, progress=progress)
    ranked = [places[id] for id in queries.gallery]
    galleries = {heavy.label: gallery.vectors[ranked]}
    if own:
        galleries |= encode(gallery, ranked, _picture, lights, threads=threads, progress=progress)
    pairs = [Pair("heavy-heavy", heavy, heavy)]
    pairs += [Pair("light-light", each, each) for each in lights if own]
    pairs += [Pair("light-heavy", each, heavy) for each in lights]
    pools = {label: Pool(queries.gallery, rows) for label, rows in galleries.items()}
    scorer = Scorer(queries.examples, METRICS, lambda example: ())
    values = []
    for pair in pairs:

        def told(done: int, label: str = pair.query.label) -> None:
            progress(f"ranking for {label}", done, len(queries.examples))

        rankings = answer(queries.examples, vectors[pair.query.label], pools[pair.gallery.label], progress=told)
        values.append(scorer.values(rankings))
    rows = tuple(Row(pair, scorer.figures(each, values[0])) for pair, each in zip(pairs, values, strict=True))
    return SetResults(queries, rows), vectors


def encode(
    gallery: Embeddings,
    rows: Sequence[int],
    shown: Callable[[Image.Image, str], Image.Image],
    entrants: Sequence[Entrant],
    *,
    threads: int,
    progress: Progress,
) -> dict[str, Float32s]:
    """Return the vectors, float32 (rows, dim), of some pictures of a gallery, by label.

    Args:
        gallery: whose files are read.
        rows: of the gallery.
        shown: makes what is encoded of a picture and its file's sha256.
        entrants: who encode.
        threads: of the encoders.
        progress: told of encoding.
    """
    encoders = {entrant.label: ImageEncoder(entrant.model, threads=threads) for entrant in entrants}
    parts: dict[str, list[Float32s]] = {label: [] for label in encoders}
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        images = [shown(decode(gallery.paths[row], limits=SERVER), gallery.sha256[row]) for row in some]
        for label, vectors in _encode(encoders, images).items():
            parts[label].append(vectors)
        progress(f"encoding by {len(encoders)} towers", start + len(images), len(rows))
    return {label: np.concatenate(some) for label, some in parts.items()}


def _picture(image: Image.Image, sha256: str) -> Image.Image:
    return image


def _view(image: Image.Image, sha256: str) -> Image.Image:
    return take_view(image, sha256, seed=_VIEW_SEED)


def _encode(encoders: Mapping[str, ImageEncoder], images: Sequence[Image.Image]) -> dict[str, Float32s]:
    """Return what each makes of the pictures; those that take them alike share what they take."""
    found: dict[str, Float32s] = {}
    for _, some in groupby(sorted(encoders, key=lambda label: _taken(encoders[label].spec)),
                           key=lambda label: _taken(encoders[label].spec)):  # fmt: skip
        labels = list(some)
        pixels = np.stack([preprocess(image, encoders[labels[0]].spec) for image in images])
        found |= {label: encoders[label].encode_pixels(pixels) for label in labels}
    return found


def _taken(spec: PictureSpec) -> tuple[int, str, str]:
    return spec.side, spec.mode, spec.interpolation
