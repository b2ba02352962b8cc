"""Time of a whole composed query over that of the encoder passes it needs, by method.

Every query has a text and a picture that this lens has never seen, so nothing is remembered of it. Right beside it the
same text and picture go through the encoders alone: the picture and the text as they are, and the picture with the
very texts that the method encodes.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose import METHODS, FeatureMap, Kit, Method, Query, Text, compose
from pocketlens.concepts import Concepts
from pocketlens.errors import BadImage, BadQuery
from pocketlens.inspect import tower_manifest
from pocketlens.lens import Lens, open_lens
from pocketlens.model import Model, find_model
from pocketlens.needs import lacking
from pocketlens.picture import load_pixels
from pocketlens_bench.evaluate_kit import open_kit
from pocketlens_bench.measure import ROOT, Options, Progress, Report, Row, alternate, at_most, median, ratio
from pocketlens_export.gallery.build import build_bundle
from pocketlens_export.gallery.scan import list_files

K = 10
THREADS = 1
WARM_UP = 3
_TEXTS = (
    "at night in the rain", "as a black outline drawing", "in red instead of blue", "with a smiling face",
    "seen from above", "two of them on a table", "much older and made of wood", "in front of a mountain",
)  # fmt: skip
_ONE_TEXT, _TWO_TEXTS = 1.25, 2.2  # the most that a query may take of one picture's and one text's passes


class _RecordingKit:
    """A Kit that hands everything on and keeps what was encoded."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.texts: list[list[str]] = []
        self.prompts: list[tuple[list[str], Float32s]] = []

    @property
    def mean(self) -> Float32s:
        return self._kit.mean

    @property
    def covariance(self) -> Float32s:
        return self._kit.covariance

    @property
    def concepts(self) -> Concepts:
        return self._kit.concepts

    def encode_texts(self, texts: list[str]) -> Float32s:
        self.texts.append(texts)
        return self._kit.encode_texts(texts)

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        self.prompts.append((prompts, pseudo_tokens))
        return self._kit.encode_prompts(prompts, pseudo_tokens)

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        return self._kit.invert(recipe, vector)

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        return self._kit.invert_features(recipe, features)

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        return self._kit.nearest(vector, count)


def run(options: Options, progress: Progress) -> Report:
    """Return the ratios of each method that the bundle supports."""
    rounds = 5 if options.quick else 60
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = options.bundle or _sample_bundle(work / "bundle", options, progress)
        lens = stack.enter_context(open_lens(bundle, threads=THREADS))
        methods = _usable(bundle)
        pictures = _pictures(options, lens, rounds + WARM_UP)
        queries = _queries(pictures, work, len(methods) * (rounds + WARM_UP))
        kit = open_kit(bundle, lens, threads=THREADS)
        table = []
        for method in methods:
            progress(method.name)
            table.append(_row(lens, kit, method, list(itertools.islice(queries, rounds + WARM_UP)), rounds))
        return _report(table, lens, rounds)


def _usable(bundle: Path) -> list[Method]:
    """Return the methods that use a picture and a text and that the bundle has what it takes for."""
    text, image = tower_manifest(bundle, "text"), tower_manifest(bundle, "image")
    return [
        method
        for method in METHODS.values()
        if {"image", "text"} <= set(method.needs) and not lacking(method, text, image)
    ]


def _pictures(options: Options, lens: Lens, count: int) -> list[Path]:
    """Return about `count` pictures, spread over the folder; a file that is none is passed over."""
    folder = options.pictures or ROOT / "demo" / "pictures"
    files = list_files(folder)
    found = []
    for path in files[:: max(1, len(files) // count)]:
        with suppress(BadImage):
            lens.image_encoder().encode([path])
            found.append(path)
    if not found:
        raise BadQuery(f"{folder} holds no pictures")
    return found


def _sample_bundle(folder: Path, options: Options, progress: Progress) -> Path:
    progress("making a bundle of the sample gallery")
    model = Model.open(find_model("lens-base"))
    build_bundle(ROOT / "demo" / "pictures" / ("toys" if options.quick else ""), folder, model=model, query_model=model)
    return folder


def _queries(pictures: list[Path], work: Path, count: int) -> Iterator[tuple[Path, str]]:
    """Yield pictures and texts, none twice: a picture's copies differ in a byte behind its end, texts in a number."""
    for number, picture in zip(range(count), itertools.cycle(pictures), strict=False):
        copy = work / f"{number}{picture.suffix}"
        copy.write_bytes(picture.read_bytes() + str(number).encode())
        yield copy, f"{_TEXTS[number % len(_TEXTS)]}, number {1_000 + number}"


def _row(lens: Lens, kit: Kit, method: Method, queries: list[tuple[Path, str]], rounds: int) -> Row:
    def query(picture: Path, words: str) -> object:
        return lens.search(image=picture, text=words, method=method.name, k=K)

    def plain(picture: Path, words: str) -> object:
        return lens.image_encoder().encode([picture]), lens.text_encoder().encode([words])

    elapsed_ms = alternate(
        {
            "query": _by_turns([partial(query, *each) for each in queries]),
            "one text": _by_turns([partial(plain, *each) for each in queries]),
            "own texts": _by_turns([_passes(lens, kit, method, *each) for each in queries]),
        },
        rounds=rounds,
        warm_up=WARM_UP,
    )
    return {
        "method": method.name,
        "text passes": method.text_passes,
        "query p50 ms": median(elapsed_ms["query"]),
        "picture and one text p50 ms": median(elapsed_ms["one text"]),
        "over these": ratio(elapsed_ms["query"], elapsed_ms["one text"]),
        "own passes p50 ms": median(elapsed_ms["own texts"]),
        "over own passes": ratio(elapsed_ms["query"], elapsed_ms["own texts"]),
    }


def _by_turns(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """Return a function that makes the next of the calls each time."""
    waiting = iter(calls)
    return lambda: next(waiting)()


def _passes(lens: Lens, kit: Kit, method: Method, picture: Path, words: str) -> Callable[[], object]:
    """Return a function that does the encoder passes of a query, and nothing else."""
    image, text = lens.image_encoder(), lens.text_encoder()
    recording = _RecordingKit(kit)
    features: tuple[FeatureMap, ...] = ()
    if "features" in method.needs:
        features = (FeatureMap(image.encode_features(load_pixels(picture, image.spec)[np.newaxis])[1][0]),)
    compose(Query(image.encode([picture])[0], (Text(words),), features=features), None, recording, method)

    def encode() -> object:
        image.encode([picture])
        for texts in recording.texts:
            text.encode(texts)
        for prompts, pseudo_tokens in recording.prompts:
            text.encode_prompts(prompts, pseudo_tokens)
        return None

    return encode


def _report(table: list[Row], lens: Lens, rounds: int) -> Report:
    manifest = lens.gallery.manifest
    bars = []
    for what, limit, of in (
        ("one text pass", _ONE_TEXT, lambda row: row["text passes"] == 1),
        ("PDV's two", _TWO_TEXTS, lambda row: str(row["method"]).startswith("pdv-")),
    ):
        worst = max((float(row["over these"] or 0) for row in table if of(row)), default=None)
        if worst is not None:
            bars.append(
                at_most(f"query over a picture's and a text's passes, the slowest method of {what}", worst, limit)
            )
    return Report(
        settings={"model": manifest.model, "rows": manifest.index.rows, "rounds": rounds, "k": K},
        threads=THREADS,
        tables={"A whole query over encoder passes": table},
        bars=bars,
        notes=[
            "Every query has a picture and a text of its own; a picture is decoded and scaled on either side.",
            "Own passes: the picture and the very texts that the method encodes, in the batches that it does it in.",
            "Ratios are medians over rounds in one process, in which query and passes take turns.",
        ],
    )
