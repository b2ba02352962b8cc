"""How well a query that has its answer in the gallery can be told from one that has none, by what statistic.

Names of pictures are the queries. Half of the names, drawn at random, lose their pictures; then every name is asked. A
statistic of the best hits is measured by the area under the curve (AUC): the chance that it is higher for a name whose
pictures are there than for one whose pictures are gone. Validation halves choose, test halves report.

For the same name with and without its pictures a statistic of the best hit differs only where one of them is the best
hit. So about 0.5 + recall@1 / 2 is the most that any can reach: the encoder's ranking sets the limit.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s, Int64s
from pocketlens.bundle import read_bundle
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.gallery import Gallery
from pocketlens.ingredients import open_concepts
from pocketlens.model import Model, find_model
from pocketlens_bench.measure import ROOT, Bar, Options, Progress, Report, Row, significant
from pocketlens_bench.progress import show_progress

Flags = NDArray[np.bool_]
VALIDATION, TEST = "validation", "test"
_SALT = "calibration/1"
_NEXT = 50  # the best hit is compared with the mean of the others up to here
_THRESHOLDS = {"cosine": (1.0, 0.02), "z": (8.0, 0.25), "margin": (0.5, 0.01)}  # from 0 up to, in steps of
_RIGHT_KEPT = 0.95  # share of right best hits that a threshold may not go below


@dataclass(frozen=True, slots=True)
class Names:
    """Pictures with names, and the names that are asked for.

    Attributes:
        title: of the set.
        vectors: float32 (pictures, dim), unit vectors.
        name_of: int64 (pictures,), a place in `names`.
        names: what pictures are called, all of which may be removed.
        texts: float32 (names, dim), unit vectors of the names.
        part: of each name: validation, test, or empty where it is not asked for.
    """

    title: str
    vectors: Float32s
    name_of: Int64s
    names: tuple[str, ...]
    texts: Float32s
    part: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """What one random half gives.

    Attributes:
        answered: bool (queries,), whether the query's pictures are in the gallery.
        right: bool (queries,), whether the best hit is one of them.
        values: each statistic by name, float64 (queries,).
    """

    answered: Flags
    right: Flags
    values: dict[str, NDArray[np.float64]]


def run(options: Options, progress: Progress) -> Report:
    """Return the areas under the curve and the operating curves."""
    draws, resamples = (3, 20) if options.quick else (20, 400)
    areas: list[Row] = []
    of_right: list[Row] = []
    curve: list[Row] = []
    hashes: dict[str, str] = {}
    model = Model.open(find_model("lens-base"))
    vocabulary = _units(open_concepts(model).vectors)
    for names in _sets(model, options, progress):
        progress(names.title)
        hashes[names.title] = split_hash(names)
        for part in (VALIDATION, TEST):
            found = _draws(names, part, vocabulary, draws)
            areas += _area_rows(names.title, part, found, resamples, right=False)
            of_right += _area_rows(names.title, part, found, resamples, right=True)
            curve += _curve_rows(names.title, part, found)
    return Report(
        settings={"draws": draws, "resamples": resamples, "next hits": _NEXT, "sha256 of each split": hashes},
        threads=1,
        tables={
            "Queries with an answer against queries without": areas,
            "Right best hits against the best hits of queries without an answer": of_right,
            "Operating curves": [row for row in curve if _is_told(row)],
            "Thresholds": _default_rows(curve),
        },
        bars=[*_bars("queries with an answer", areas), *_bars("right best hits", of_right)],
        notes=[
            "The ceiling is 0.5 + recall@1 / 2, with the recall@1 of the queries that have an answer.",
            "Intervals hold 95 % of the resamples of the queries; a difference is to the cosine in the same resamples.",
            "margin: the best hit's cosine less the mean of the next 49.",
            "Thresholds: the highest that keeps 95 % of the right best hits on validation; shares are of test.",
            "lens-base was trained on no concept of the set of unseen emoji, and on all of the seen ones.",
        ],
    )


def area(values: NDArray[np.float64], answered: Flags) -> float:
    """Return the chance that a value with an answer is above one without, equal ones counting half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1, the mean rank of equal values
    ones = int(answered.sum())
    return float((ranks[answered].sum() - ones * (ones + 1) / 2) / (ones * (len(values) - ones)))


def statistics(queries: Float32s, rows: Float32s, best_name: Float32s, names: Float32s) -> dict[str, Float32s]:
    """Return each statistic of the best hits, (queries,); higher speaks for an answer.

    Args:
        queries: float32 (n, dim), unit vectors.
        rows: float32 (m, dim), the gallery's.
        best_name: float32 (m,), the highest cosine of each row with a name of the vocabulary.
        names: float32 (v, dim), the vocabulary's unit vectors.
    """
    scores = queries @ rows.T  # (n, m)
    best = -np.partition(-scores, min(_NEXT, scores.shape[1] - 1), axis=1)[:, :_NEXT]
    best = -np.sort(-best, axis=1)
    means, deviations = scores.mean(axis=1), scores.std(axis=1)
    centred = rows - rows.mean(axis=0)
    away = queries - names.mean(axis=0)
    covariance = np.cov(names.T, bias=True)
    of_names = (rows @ names.mean(axis=0), np.sqrt(np.einsum("md,de,me->m", rows, covariance, rows, optimize=True)))
    over_names = (scores - of_names[0]) / of_names[1]
    z = (scores - means[:, None]) / deviations[:, None]
    return {
        "cosine": best[:, 0],
        "z": (best[:, 0] - means) / deviations,
        "margin": best[:, 0] - best[:, 1:].mean(axis=1),
        "margin in deviations": (best[:, 0] - best[:, 1:].mean(axis=1)) / deviations,
        "mean z of the best 5": (best[:, :5].mean(axis=1) - means) / deviations,
        "centred cosine": (_units(away) @ _units(centred).T).max(axis=1),
        "z over the vocabulary": over_names.max(axis=1),
        "z + z over the vocabulary": (z + over_names).max(axis=1),
        "cosine less the best name's": (scores - best_name).max(axis=1),
    }


def split_hash(names: Names) -> str:
    """Return the sha256 of a set's sorted (name, part) pairs."""
    lines = "\n".join(f"{name}\t{part}" for name, part in sorted(zip(names.names, names.part, strict=True)))
    return hashlib.sha256(lines.encode()).hexdigest()


def _half(name: str) -> str:
    return (VALIDATION, TEST)[hashlib.sha256(f"{_SALT}:{name}".encode()).digest()[0] % 2]


def _sets(model: Model, options: Options, progress: Progress) -> Iterator[Names]:
    yield _sample(model, options.quick)
    if options.bundle is None:
        progress("no bundle of EmojiCIR's pictures was given: only the sample gallery is measured")
        return
    for seen in (False, True):
        yield _emoji(options.bundle, model, seen=seen, quick=options.quick)


def _sample(model: Model, quick: bool) -> Names:
    folder = ROOT / "demo" / "pictures"
    with (folder / "LICENCES.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))[:: 4 if quick else 1]
    encoder = ImageEncoder(model, threads=1)
    vectors = np.concatenate([encoder.encode([folder / record["path"]]) for record in records])
    titles = [record["title"] for record in records]
    return _named("sample gallery", model, vectors, titles, _half)


def _emoji(bundle: Path, model: Model, *, seen: bool, quick: bool) -> Names:
    with gzip.open(ROOT / "benchmarks" / "emojicir" / "pictures.tsv.gz", "rt", encoding="utf-8") as file:
        records = list(csv.DictReader(file, delimiter="\t"))[:: 8 if quick else 1]
    gallery = Gallery.open(bundle / "gallery", manifest_sha256=read_bundle(bundle).gallery)
    row_of = {item.id: item.row for item in gallery.items.read_all()}
    vectors = gallery.index.vectors(np.asarray([row_of[record["id"]] for record in records]))
    gallery.close()
    parts: dict[str, set[str]] = {}
    for record in records:
        parts.setdefault(record["base"], set()).add(record["encoder"])

    def part_of(name: str) -> str:
        (of_encoder, *others) = parts[name]
        if seen:
            return _half(name) if of_encoder == "train" and not others else ""
        return of_encoder if of_encoder != "train" and not others else ""

    title = f"emoji, {'seen' if seen else 'unseen'} in training"
    return _named(title, model, vectors, [record["base"] for record in records], part_of)


def _named(title: str, model: Model, vectors: Float32s, called: list[str], part_of: Callable[[str], str]) -> Names:
    names = sorted(set(called))
    texts = TextEncoder(model, threads=1).encode(names)
    return Names(
        title, vectors, np.searchsorted(names, called), tuple(names), texts, tuple(part_of(name) for name in names)
    )


def _draws(names: Names, part: str, vocabulary: Float32s, count: int) -> list[Draw]:
    rng = np.random.default_rng(0)
    asked = np.flatnonzero(np.asarray(names.part) == part)
    best_name = np.concatenate(
        [(block @ vocabulary.T).max(axis=1) for block in np.array_split(names.vectors, len(names.vectors) // 512 + 1)]
    )
    draws = []
    with show_progress() as show:
        for number in range(count):
            show(f"{names.title}, {part}", number, count)
            draws.append(_draw(names, asked, best_name, vocabulary, rng))
    return draws


def _draw(names: Names, asked: Int64s, best_name: Float32s, vocabulary: Float32s, rng: np.random.Generator) -> Draw:
    kept = rng.permutation(len(names.names)) < len(names.names) // 2
    pictures = np.flatnonzero(kept[names.name_of])
    rows, queries = names.vectors[pictures], names.texts[asked]
    first = names.name_of[pictures][(queries @ rows.T).argmax(axis=1)]
    values = statistics(queries, rows, best_name[pictures], vocabulary)
    return Draw(kept[asked], first == asked, {name: value.astype(np.float64) for name, value in values.items()})


def _area_rows(title: str, part: str, draws: list[Draw], resamples: int, *, right: bool) -> list[Row]:
    """Return one row a statistic, over all draws together.

    Args:
        title, part: of the queries.
        draws: what is known of each query.
        resamples: of the queries, for the intervals.
        right: whether only queries whose best hit is right stand for those with an answer.
    """
    rng = np.random.default_rng(1)
    answered = np.stack([draw.answered for draw in draws])  # (draws, queries)
    best_right = np.stack([draw.right for draw in draws])
    counted = best_right | ~answered if right else np.ones_like(answered)
    everyone: Int64s = np.arange(answered.shape[1])
    samples = [np.asarray(rng.choice(everyone, len(everyone)), dtype=np.int64) for _ in range(resamples)]
    ceiling = None if right else round(0.5 + float(best_right[answered].mean()) / 2, 3)
    rows: list[Row] = []
    base = np.zeros(0)
    for name in draws[0].values:
        values = np.stack([draw.values[name] for draw in draws])
        areas = np.asarray(
            [
                area(values[:, sample][counted[:, sample]], answered[:, sample][counted[:, sample]])
                for sample in (everyone, *samples)
            ]
        )
        base = areas if name == "cosine" else base
        low, high = np.quantile(areas[1:], (0.025, 0.975))
        least, most = np.quantile((areas - base)[1:], (0.025, 0.975))
        rows.append({
            "set": title, "part": part, "queries": len(everyone), "statistic": name, "AUC": round(float(areas[0]), 3),
            "95 % interval": f"{low:.3f} to {high:.3f}", "over the cosine": round(float(areas[0] - base[0]), 3),
            "interval of the difference": f"{least:+.3f} to {most:+.3f}",
            **({} if right else {"ceiling": ceiling}),
        })  # fmt: skip
    return rows


def _curve_rows(title: str, part: str, draws: list[Draw]) -> list[Row]:
    answered = np.concatenate([draw.answered for draw in draws])
    right = np.concatenate([draw.right & draw.answered for draw in draws])
    rows: list[Row] = []
    for name, (most, step) in _THRESHOLDS.items():
        values = np.concatenate([draw.values[name] for draw in draws])
        rows += [
            {
                "set": title,
                "part": part,
                "statistic": name,
                "least": threshold,
                "right best hits kept": significant(float((values[right] >= threshold).mean()), 3),
                "answered queries with hits": significant(float((values[answered] >= threshold).mean()), 3),
                "unanswered queries without hits": significant(float((values[~answered] < threshold).mean()), 3),
            }
            for threshold in (round(step * number, 2) for number in range(round(most / step) + 1))
        ]
    return rows


def _is_told(row: Row) -> bool:
    """Return whether a row of the curves is of test, and every second one or fewer: enough for a plot."""
    steps = round(float(row["least"] or 0) / _THRESHOLDS[str(row["statistic"])][1])
    return row["part"] == TEST and steps % 2 == 0


def _default_rows(curve: list[Row]) -> list[Row]:
    """Return, by set and statistic, the highest threshold that keeps most right hits on validation; shares of test."""
    rows: list[Row] = []
    for title, name in dict.fromkeys((row["set"], row["statistic"]) for row in curve):
        alike = [row for row in curve if (row["set"], row["statistic"]) == (title, name)]
        chosen = max(
            float(row["least"] or 0)
            for row in alike
            if row["part"] == VALIDATION and float(row["right best hits kept"] or 0) >= _RIGHT_KEPT
        )
        rows += [row for row in alike if row["part"] == TEST and row["least"] == chosen]
    return rows


def _bars(what: str, areas: list[Row]) -> list[Bar]:
    """Return whether z and margin beat the cosine on test, with the whole interval of the difference above 0."""
    return [
        Bar(
            f"AUC of {what}, {row['statistic']} over the cosine, {row['set']}",
            "interval above 0",
            float(row["over the cosine"] or 0),
            str(row["interval of the difference"]).startswith("+"),
        )
        for row in areas
        if row["part"] == TEST and row["statistic"] in ("z", "margin")
    ]


def _units(vectors: Float32s) -> Float32s:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
