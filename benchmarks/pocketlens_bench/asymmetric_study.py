"""Maps and losses compared: `python -m pocketlens_bench.asymmetric_study` makes a query model by each and asks all.

One light tower, one set of pictures and one seed for all of them. A model that no teacher has seen
(`asymmetric_foreign`) gets each map of `pocketlens fit align`; the same tower is trained with each loss of `pocketlens
fit distill`. Both cost the same: a step of the former sees two views of a picture, so that it gets half the steps. A
token learner goes on from the tower that was distilled by `raml`. Then all are asked the same queries.

The rate was chosen by the held-out loss of `raml`; nothing was chosen by what is measured here.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from pocketlens.encoder import ImageEncoder
from pocketlens.files import sha256_of, write_file
from pocketlens.model import Model, PictureSpec, find_model
from pocketlens_bench.asymmetric import Comparison, Request, compare
from pocketlens_bench.asymmetric_composed import ComposedRow, compare_composed
from pocketlens_bench.asymmetric_models import Entrant, open_entrants
from pocketlens_bench.asymmetric_report import to_json, to_text
from pocketlens_bench.asymmetric_tables import NAME
from pocketlens_bench.measure import RESULTS
from pocketlens_bench.progress import Progress, show_progress
from pocketlens_export.embeddings import VectorStore, encode_pictures, open_picture_store
from pocketlens_export.fit.console import cache_folder
from pocketlens_export.gallery.scan import Loaded, list_files, load_all
from pocketlens_export.spread import MAX_MEAN_COSINE

MAPS = ("ridge", "procrustes", "residual-mlp")
LOSSES = ("fitnet", "raml", "csd", "rop", "d3")
FOREIGN, TOKENS = "foreign", "isa"
UNGATED = "pocketlens_bench.asymmetric_ungated"
METHODS = ("sum", "product", "auto", "isa")

SIDE, FOREIGN_DIM = 64, 512
PICTURES, TOKEN_PICTURES = 4_000, 3_000
STEPS, BATCH, RATE, VIEWS, SEED = 300, 128, 3e-3, 2, 0
TOKEN_STEPS, TOKEN_BATCH = 200, 64
COMPOSED = 1_000  # composed queries, spread evenly
_BATCH = 32
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared, and on what.

    Attributes:
        heavy: encodes the galleries; a model folder or a shipped name.
        float_heavy: the same with a float text tower, for the token learner; None leaves that out.
        pictures: a folder to train on.
        unseen: a folder of pictures whose views are asked with, of nothing that was trained on.
        emojicir: EmojiCIR's data folder.
        queries: more query models of the heavy model's space.
        work: folder that keeps what is made; what is there is not made again.
        threads: of everything but timing, which is on one.
    """

    heavy: str
    float_heavy: str | None
    pictures: Path
    unseen: Path
    emojicir: Path
    queries: tuple[str, ...]
    work: Path
    threads: int


def tower_config(dim: int, *, trunk: str = "mobilenetv4_conv_small") -> dict[str, Any]:
    """Return an open_clip config of a light tower, by timm's name of its trunk, with a head of so many dimensions."""
    return {
        "model_cfg": {
            "embed_dim": dim,
            "vision_cfg": {
                "image_size": SIDE,
                "timm_model_name": trunk,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "",
            },
        },
        "preprocess_cfg": {
            "size": SIDE,
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
            "fill_color": 255,
        },
    }


def commands(study: Study) -> dict[str, list[str]]:
    """Return the arguments of `python -m` that make each model, by its name and in order; they write work/NAME."""
    work = study.work
    shared = ["--heavy", study.heavy, "--threads", str(study.threads), "--seed", str(SEED)]
    pictures = ["--pictures", str(work / "pictures")]
    trained = ["--batch", str(BATCH), *pictures, *shared]
    made = {
        FOREIGN: [
            "pocketlens_bench.asymmetric_foreign", "--light", str(work / "foreign.json"), "--steps", str(STEPS // 2),
            "--rate", str(RATE), *trained,
        ]
    }  # fmt: skip
    for map in MAPS:
        made[map] = ["pocketlens", "fit", "align", "--light", str(work / FOREIGN), "--map", map, *pictures, *shared]
    for loss in LOSSES:
        made[loss] = [
            "pocketlens", "fit", "distill", "--light", str(work / "light.json"), "--loss", loss, "--steps", str(STEPS),
            "--views", str(VIEWS), "--set", f"rate={RATE}", *trained,
        ]  # fmt: skip
    if study.float_heavy is not None:
        made[TOKENS] = [
            "pocketlens", "fit", "token-learner", "--light", str(work / "raml"), "--heavy", study.float_heavy,
            "--pictures", str(work / "token-pictures"), "--steps", str(TOKEN_STEPS), "--batch", str(TOKEN_BATCH),
            "--set", f"views={VIEWS}", "--threads", str(study.threads), "--seed", str(SEED),
        ]  # fmt: skip
    named = {name: [] if name == TOKENS else ["--name", name] for name in made}
    return {name: [*arguments, *named[name], "--out", str(work / name)] for name, arguments in made.items()}


def choose(pictures: Path, count: int) -> list[tuple[str, Path]]:
    """Return the `count` files of a folder whose content has the least sha256, each with it."""
    found = {sha256_of(path): path for path in list_files(pictures)}
    return sorted(found.items())[:count]


def prepare(study: Study) -> str:
    """Write configs and link the chosen pictures into the work folder; return the hash over the pictures' hashes."""
    dim = Model.open(find_model(study.heavy)).manifest.space.dim
    for name, width in (("light", dim), ("foreign", FOREIGN_DIM)):
        write_file(study.work / f"{name}.json", json.dumps(tower_config(width)).encode())
    chosen = choose(study.pictures, PICTURES)
    for folder, count in (("pictures", PICTURES), ("token-pictures", TOKEN_PICTURES)):
        (study.work / folder).mkdir(exist_ok=True)
        for digest, path in chosen[:count]:
            link = study.work / folder / f"{digest[:32]}{path.suffix}"
            if not link.exists():
                link.hardlink_to(path)
    return hashlib.sha256("".join(digest for digest, _ in chosen).encode()).hexdigest()


def make(arguments: Sequence[str]) -> None:
    """Run a command; a tower that `pocketlens` refuses for its alike embeddings is written all the same.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    program, *rest = arguments
    done = subprocess.run([sys.executable, "-m", program, *rest], check=False)
    if done.returncode == 0:
        return
    if program != "pocketlens":
        done.check_returncode()
    subprocess.run([sys.executable, "-m", UNGATED, *rest], check=True)  # goes on from the trained weights


def measure(study: Study, progress: Progress) -> Comparison:
    """Return what all models find: the same emoji by another vendor, the picture of a view, composed queries."""
    extra = [str(study.work / name) for name in (*MAPS, *LOSSES)]
    entrants = open_entrants(study.heavy, [str(study.work / FOREIGN)], [*extra, *study.queries])
    cache = cache_folder()
    for folder in (study.emojicir / "pictures", study.unseen):
        encode_together([entrant.model for entrant in entrants], folder, cache, study.threads, progress)
    request = Request(entrants, None, study.emojicir, threads=study.threads, cache=cache)
    found = compare(request, progress=progress)
    views = compare(replace(request, data=study.unseen, emojicir=None, split="all"), progress=progress)
    composed = _composed(study, request, progress)
    return replace(found, sets=(*found.sets, views.sets[0]), composed=composed)


def encode_together(models: Sequence[Model], folder: Path, cache: Path, threads: int, progress: Progress) -> None:
    """Put into the cache what many models make of a folder's pictures; each is decoded once for all of a size."""
    encoders = [(ImageEncoder(model, threads=threads), model) for model in models]
    taken = dict.fromkeys((each.spec.side, each.spec.mode, each.spec.interpolation) for each, _ in encoders)
    for size in taken:
        some = [each for each in encoders if (each[0].spec.side, each[0].spec.mode, each[0].spec.interpolation) == size]
        _encode_size(some, folder, cache, progress)


def _encode_size(encoders: Sequence[tuple[ImageEncoder, Model]], folder: Path, cache: Path, progress: Progress) -> None:
    spec: PictureSpec = encoders[0][0].spec
    stores = [open_picture_store(model, encoder.spec, cache) for encoder, model in encoders]
    paths = [path for path in list_files(folder) if not _in_all(path, stores)]
    waiting: list[Loaded] = []
    for place, outcome in enumerate(load_all(folder, paths, spec)):
        waiting += [outcome] if isinstance(outcome, Loaded) else []
        if len(waiting) < _BATCH and place + 1 < len(paths):
            continue
        if waiting:
            pixels, digests = np.stack([each.pixels for each in waiting]), [each.sha256 for each in waiting]
            for (encoder, _), store in zip(encoders, stores, strict=True):
                store.add(digests, encoder.encode_pixels(pixels), [each.id for each in waiting])
        waiting = []
        progress(f"encoding {folder.name} at {spec.side} pixels, {len(encoders)} models", place + 1, len(paths))
    for store in stores:
        store.save()


def _in_all(path: Path, stores: Sequence[VectorStore]) -> bool:
    digest = sha256_of(path)
    return all(digest in store for store in stores)


def _composed(study: Study, request: Request, progress: Progress) -> tuple[ComposedRow, ...]:
    """Return composed queries' figures, of the token learner too, whose pictures the tower of `raml` encodes."""
    entrants = request.entrants
    if study.float_heavy is not None:
        entrants = (*entrants, Entrant(TOKENS, "query", Model.open(study.work / TOKENS)))
    pictures = encode_pictures(
        entrants[0].model, study.emojicir / "pictures", cache=request.cache, progress=progress, threads=study.threads
    )
    return compare_composed(
        entrants, study.emojicir, pictures, METHODS,
        split=request.split, limit=COMPOSED, threads=study.threads, progress=progress,
    )  # fmt: skip


def as_shown(arguments: Sequence[str], places: Mapping[str, str]) -> str:
    """Return a command as one line, in which places on this machine have other names."""
    line = " ".join(arguments)
    for place, name in places.items():
        line = line.replace(place, name)
    return line


def describe(study: Study, pictures_sha256: str, found: Comparison) -> dict[str, Any]:
    """Return the JSON result: what was measured, and how the models were made; no absolute paths."""
    places = {str(study.work): "WORK", study.heavy: Path(study.heavy).name if "/" in study.heavy else study.heavy}
    places |= {} if study.float_heavy is None else {study.float_heavy: "HEAVY-FLOAT"}
    made = {name: as_shown(arguments, places) for name, arguments in commands(study).items()}
    quality = {
        entrant.label: figures
        for entrant in found.request.entrants
        if (figures := {k: v for k, v in entrant.model.manifest.quality.items() if k.startswith("asymmetric_")})
    }
    report = to_json(found)
    report["versions"] |= {name: version(name) for name in ("torch", "timm", "open_clip_torch")}
    report["study"] = {
        "pictures": PICTURES,
        "pictures_sha256": pictures_sha256,
        "commands": made,
        "quality": quality,
        "maps": list(MAPS),
        "losses": list(LOSSES),
        "refused": {
            entrant.label: spread
            for entrant in found.request.entrants
            if (spread := entrant.model.manifest.quality.get("mean_pairwise_cosine", 0.0)) > MAX_MEAN_COSINE
        },
    }
    return report


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--heavy", default="lens-base", show_default=True, help="Encodes the galleries.")
@click.option("--float-heavy", help="The same with a float text tower, for the token learner; without it none is made.")
@click.option("--pictures", required=True, type=_PATH, help="To train on: lens-tiny's recipe writes them.")
@click.option("--unseen", required=True, type=_PATH, help="To ask views of: the recipe's validation pictures.")
@click.option("--emojicir", required=True, type=_PATH, help="EmojiCIR's data folder.")
@click.option("--query", "queries", multiple=True, help="Another query model. Repeatable.")
@click.option("--work", required=True, type=_PATH, help="Keeps what is made, for the next run.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads.")
@click.option("--out", type=_PATH, default=RESULTS / f"{NAME}.json", help="The JSON result.")
def main(
    heavy: str,
    float_heavy: str | None,
    pictures: Path,
    unseen: Path,
    emojicir: Path,
    queries: Sequence[str],
    work: Path,
    threads: int,
    out: Path,
) -> None:
    """Make a query model by every map and every loss, and measure all on the same queries. About an hour of one core.

    Vectors, views and checkpoints are kept in the cache that fit uses; a stopped study goes on where it was.
    """
    study = Study(heavy, float_heavy, pictures, unseen, emojicir, tuple(queries), work, threads)
    work.mkdir(parents=True, exist_ok=True)
    digest = prepare(study)
    for name, arguments in commands(study).items():
        if not (work / name).is_dir():
            click.echo(name, err=True)
            make(arguments)
    with show_progress() as progress:
        found = measure(study, progress)
    write_file(out, (json.dumps(describe(study, digest, found), indent=1, allow_nan=False) + "\n").encode())
    click.echo(to_text(found))


if __name__ == "__main__":
    main()
