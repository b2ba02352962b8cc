"""Search of 100,000 CLIP-shaped vectors beside faiss, hnswlib and NumPy: recall against time, size, share of a query.

One thread, one process, all by turns, text-like queries. Then what a search costs beside the encoder that a query needs
as well, and what opening the gallery costs of a whole `pocketlens search`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from pocketlens.encoder import TextEncoder
from pocketlens.model import Model, find_model
from pocketlens.tune import exact_rows
from pocketlens_bench import clip_shaped
from pocketlens_bench.contenders import Contender, file_of, of_graph, plain_dynamic
from pocketlens_bench.engines import (
    FLAT,
    OURS,
    K,
    builds,
    check_peers,
    faiss_flat,
    faiss_hnsw,
    faiss_ivf,
    hnswlib_graph,
    measure_engines,
    numpy_scan,
    own_gallery,
)
from pocketlens_bench.measure import (
    Bar,
    Options,
    Progress,
    Report,
    Row,
    alternate,
    at_least,
    at_most,
    median,
    ratio,
)
from pocketlens_bench.models import NAME, make_bundle, mobileclip
from pocketlens_bench.subjects import data_of, quantized
from pocketlens_quantize.session import Feed

_TEXTS = ("a red bicycle", "a dog on a beach", "two people eating at a table", "an old map", "a bowl of fruit")
_ENCODED = 40
_OPENINGS = 5
INT8, OWN, FLOAT = "int8 by onnxruntime's quantize_dynamic", "int8 by pocketlens quantize", "float32"
_SEARCH = """
import sys, time
from pocketlens.gallery import Gallery
opened, seconds = Gallery.open, []
def timed(*arguments, **named):
    start = time.perf_counter()
    try:
        return opened(*arguments, **named)
    finally:
        seconds.append(time.perf_counter() - start)
Gallery.open = timed
from pocketlens.cli import main
sys.argv = ["pocketlens", "search", *sys.argv[1:]]
main()
print("\\n", 1e3 * sum(seconds))
"""


def run(options: Options, progress: Progress) -> Report:
    """Return recall and time of every index, and the share of a search in a query and of opening in a cold start."""
    check_peers()
    rows, count, rounds = (3_000, 50, 5) if options.quick else (100_000, 200, 60)
    vectors = clip_shaped.pictures(rows)
    texts = clip_shaped.texts(count + 256)
    queries, truth = texts[:count], exact_rows(vectors, texts[:count], k=K)
    with tempfile.TemporaryDirectory() as folder:
        progress("pocketlens")
        gallery, ours, _ = own_gallery(Path(folder), vectors, texts[count:])
        engines = [ours, numpy_scan(vectors)]
        for name, make in (("flat SQ8", faiss_flat), ("HNSW-SQ8", faiss_hnsw), ("hnswlib", hnswlib_graph)):
            progress(name)
            engines.append(make(vectors))
        progress("IVF-SQ8")
        engines += faiss_ivf(vectors, vectors.astype(np.float16))
        progress("searching")
        points, _ = measure_engines(engines, queries, truth, base=FLAT, rounds=rounds)
        progress("encoding")
        vector = queries[:1]
        encoding = _encoding(options, progress, lambda: ours.search(vector, 0))
        kind = gallery.manifest.index.kind
        gallery.close()
    opening = _opening(options, progress, rows)
    sizes = builds(engines, vectors)
    return Report(
        settings={
            "rows": rows,
            "dim": vectors.shape[1],
            "queries": count,
            "timed queries": rounds,
            "k": K,
            "index": kind,
        },
        threads=1,
        tables={"Recall and time": points, "Builds": sizes, "Beside the text encoder": encoding, "Opening": opening},
        bars=_bars(points, sizes, encoding, opening),
        notes=[
            "pocketlens re-scores its best 50 from float16, and makes a query's code within its time; faiss's IVF-SQ8 "
            "is measured plain and with the same re-scoring. Settings are nprobe, efSearch and ef.",
            "Graphs: 16 links, width 128 when built. IVF-SQ8 has twice the square root of the rows as lists.",
            f"{NAME} has seeded weights: the time is the architecture's. This processor decides what int8 gains.",
            "Opening: milliseconds inside Gallery.open, against the whole process of `pocketlens search`, both of the "
            "same processes; hashing what is not known to be unchanged is part of both.",
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
        ],
        packages=("numpy", "usearch", "numkong", "onnxruntime", "faiss-cpu", "hnswlib"),
    )


def _encoding(options: Options, progress: Progress, search: Callable[[], object]) -> list[Row]:
    """Return a search's time over that of each text encoder, all by turns."""
    model = Model.open(mobileclip(options, progress).folder)
    encoder = TextEncoder(model, threads=1)
    none = np.zeros((1, 0, encoder.spec.token_dim), dtype=np.float32)
    ids = [encoder.pad(encoder.tokenizer.ids([text])) for text in _TEXTS]
    feeds: list[Feed] = [{"input_ids": each, "pseudo_tokens": none} for each in ids]
    encoders: dict[str, Contender] = {
        FLOAT: of_graph(onnx.load(str(file_of(model, "text")))),
        INT8: plain_dynamic(model, "text"),
    }
    smaller = None if options.quick else quantized(model, data_of(options), options, progress)  # minutes
    if isinstance(smaller, Model):
        encoders[OWN] = of_graph(onnx.load(str(file_of(smaller, "text"))))
    places = {name: iter(range(10**9)) for name in encoders}

    def encode(name: str, contender: Contender) -> object:
        assert contender.encode is not None
        return contender.encode(feeds[next(places[name]) % len(feeds)])

    runs = {name: (lambda name=name, each=each: encode(name, each)) for name, each in encoders.items()}
    elapsed_ms = alternate({OURS: search, **runs}, rounds=3 if options.quick else _ENCODED)
    return [
        {
            "encoder": f"{NAME}, {name}",
            "encoding p50 ms": median(elapsed_ms[name]),
            "search p50 ms": median(elapsed_ms[OURS]),
            "search over encoding": ratio(elapsed_ms[OURS], elapsed_ms[name]),
        }
        for name in encoders
    ]


def _opening(options: Options, progress: Progress, rows: int) -> list[Row]:
    """Return how much of the cold start of `pocketlens search` it takes to open a gallery that is verified already."""
    models = {NAME: Model.open(mobileclip(options, progress).folder), "lens-base": Model.open(find_model("lens-base"))}
    table: list[Row] = []
    for name, model in models.items():
        progress(f"opening, {name}")
        with tempfile.TemporaryDirectory() as folder:
            bundle = make_bundle(Path(folder) / "bundle", model, rows=rows)
            found = [_open_once(bundle) for _ in range(2 + _OPENINGS)][2:]
        whole, opened = zip(*found, strict=True)
        table.append(
            {
                "bundle": f"{rows:,} x {model.manifest.space.dim}, {name}'s text tower",
                "whole p50 ms": median(whole),
                "gallery p50 ms": median(opened),
                "share": ratio(opened, whole),
            }
        )
    return table


def _open_once(bundle: Path) -> tuple[float, float]:
    """Return milliseconds of a whole `pocketlens search` in a new process, and of opening the gallery in it."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _SEARCH, str(bundle), _TEXTS[0]]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return (time.perf_counter() - start) * 1e3, float(output.split()[-1])


def _bars(points: Sequence[Row], sizes: Sequence[Row], encoding: Sequence[Row], opening: Sequence[Row]) -> list[Bar]:
    ours = next(row for row in points if row["index"] == OURS)
    size = next(row for row in sizes if row["index"] == OURS)
    quickest = min(encoding, key=lambda row: float(row["encoding p50 ms"] or 0))
    return [
        at_least("recall@10", float(ours["recall@10"] or 0), 0.995),
        at_most(f"time over {FLAT}", float(ours[f"time over {FLAT}"] or 0), 1.2),
        at_most(
            f"time over the quickest text encoder ({quickest['encoder']})",
            float(quickest["search over encoding"] or 0),
            0.25,
        ),
        at_most("index file over float32", float(size["size over float32"] or 0), 0.30),
        *(at_most(f"opening over a whole search, {row['bundle']}", float(row["share"] or 0), 0.05) for row in opening),
    ]
