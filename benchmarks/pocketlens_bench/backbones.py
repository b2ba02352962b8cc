"""Backbones of lens-tiny compared: `python -m pocketlens_bench.backbones` trains each alike, and makes it int8.

FastViT and MobileOne, MobileCLIP's own families, MobileNetV4, RepViT, and the unthinned EfficientNet-Lite0 begin from
the same seed, and are trained by the same loss on the same pictures for the same number of steps, few enough for a
processor. Nobody's weights are loaded: what is compared is how fast a trunk learns, how it bears int8, and what it
costs. lens-tiny as it ships stands beside them for orientation; its trunk knew ImageNet and saw 112 pixels.

A choice is made by this, so that only validation concepts and pictures are asked.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from pocketlens._types import Float32s
from pocketlens.files import write_file
from pocketlens.model import Model, find_model
from pocketlens_bench.asymmetric import Comparison, Request
from pocketlens_bench.asymmetric_models import Entrant, time_encoders
from pocketlens_bench.asymmetric_report import to_json, to_text
from pocketlens_bench.asymmetric_sets import ALL, limited, read_emojicir, read_folder
from pocketlens_bench.asymmetric_study import SIDE, as_shown, choose, make, tower_config
from pocketlens_bench.backbones_queries import ask
from pocketlens_bench.backbones_tables import INT8, NAME, SHIPPED
from pocketlens_bench.backbones_timing import step_seconds
from pocketlens_bench.backbones_towers import contents, latencies
from pocketlens_bench.measure import RESULTS, cosines, significant
from pocketlens_bench.progress import Progress, show_progress
from pocketlens_export.embeddings import encode_pictures
from pocketlens_export.fit.console import cache_folder
from pocketlens_quantize.target import find_target

BACKBONES = ("mobilenetv4_conv_small", "tf_efficientnet_lite0", "fastvit_t8", "repvit_m0_9", "mobileone_s0")
SIDES = (None, 112, 256)  # that pictures are timed at; None: the tower's own
PICTURES, STEPS, BATCH, RATE, VIEWS, SEED = 4_000, 200, 64, 3e-3, 2, 0
GATE, MINUTES = "agreement=0.5,cosine=0.9", 5.0
ASKED_VIEWS = 1_000  # spread evenly over the unseen pictures
_REFUSED = "refused.txt"
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared, and on what.

    Attributes:
        heavy: encodes the galleries; a model folder or a shipped name.
        shipped: the query model that stands beside the trained ones.
        pictures: a folder to train on.
        unseen: a folder of pictures whose views are asked with, of nothing that was trained on.
        calibration: a folder of pictures that int8 ranges are taken from.
        emojicir: EmojiCIR's data folder.
        work: folder that keeps what is made; what is there is not made again.
        backbones: timm's names of the trunks.
        steps, batch: of each training.
        minutes: that `pocketlens quantize` searches, at most.
        threads: of everything but timing, which is on one.
    """

    heavy: str
    shipped: str
    pictures: Path
    unseen: Path
    calibration: Path
    emojicir: Path
    work: Path
    backbones: tuple[str, ...]
    steps: int
    batch: int
    minutes: float
    threads: int


def commands(study: Study) -> dict[str, list[str]]:
    """Return the arguments of `python -m` that make each tower, by the name of the folder that they write in work."""
    made: dict[str, list[str]] = {}
    for name in study.backbones:
        made[name] = [
            "pocketlens", "fit", "distill", "--light", str(study.work / f"{name}.json"), "--heavy", study.heavy,
            "--pictures", str(study.work / "pictures"), "--loss", "raml", "--steps", str(study.steps),
            "--batch", str(study.batch), "--views", str(VIEWS), "--set", f"rate={RATE}", "--seed", str(SEED),
            "--threads", str(study.threads), "--name", name, "--out", str(study.work / name),
        ]  # fmt: skip
        made[name + INT8] = [
            "pocketlens", "quantize", str(study.work / name), "--target", "x86-64",
            "--calibration", str(study.calibration), "--gate", GATE, "--minutes", f"{study.minutes:g}",
            "--out", str(study.work / (name + INT8)),
        ]  # fmt: skip
    return made


def prepare(study: Study) -> str:
    """Write configs and link the chosen pictures into the work folder; return the hash over the pictures' hashes."""
    dim = Model.open(find_model(study.heavy)).manifest.space.dim
    folder = study.work / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in study.backbones:
        write_file(study.work / f"{name}.json", json.dumps(tower_config(dim, trunk=name)).encode())
    linked = len(list(folder.iterdir())) == PICTURES  # then they need not be looked for among all
    chosen = choose(folder if linked else study.pictures, PICTURES)
    for digest, path in chosen:
        link = folder / f"{digest[:32]}{path.suffix}"
        if not link.exists():
            link.hardlink_to(path)
    return hashlib.sha256("".join(digest for digest, _ in chosen).encode()).hexdigest()


def make_all(study: Study) -> None:
    """Run every command whose folder is not there; what `pocketlens quantize` refuses is written down, with why."""
    for name, arguments in commands(study).items():
        if (study.work / name).is_dir() or _reason(study, name):
            continue
        click.echo(name, err=True)
        if not name.endswith(INT8):
            make(arguments)
            continue
        done = subprocess.run([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True, check=False)
        click.echo(done.stderr, err=True)
        if done.returncode:
            write_file(study.work / f"{name}.{_REFUSED}", done.stderr.strip().splitlines()[-1].encode())


def entrants_of(study: Study) -> tuple[Entrant, ...]:
    """Return the heavy model, the shipped query model, and every tower that was made, float32 and int8."""
    made = [name for name in commands(study) if (study.work / name).is_dir()]
    return (
        Entrant(study.heavy, "heavy", Model.open(find_model(study.heavy))),
        Entrant(SHIPPED, "query", Model.open(find_model(study.shipped))),
        *(Entrant(name, "query", Model.open(study.work / name)) for name in made),
    )


def measure(
    study: Study, entrants: tuple[Entrant, ...], progress: Progress
) -> tuple[Comparison, dict[str, dict[str, float]]]:
    """Return what all find over the heavy model's gallery, and the cosines of int8 and float32 vectors by tower.

    Asked are the same emoji by another vendor, and the picture of a view.
    """
    heavy, cache = entrants[0].model, cache_folder()
    emoji, unseen = (
        encode_pictures(heavy, folder, cache=cache, progress=progress, threads=study.threads)
        for folder in (study.emojicir / "pictures", study.unseen)
    )
    asked = read_emojicir(study.emojicir, frozenset(emoji.ids), split="validation")
    [pictures] = [each for each in asked if each.asked == "picture"]
    views, *_ = read_folder(study.unseen, unseen.ids, unseen.sha256, split=ALL)
    same, vectors = ask(pictures, emoji, entrants, threads=study.threads, progress=progress)
    views = limited(views, ASKED_VIEWS)
    seen, _ = ask(views, unseen, entrants, own=True, threads=study.threads, progress=progress)
    request = Request(entrants, study.unseen, study.emojicir, split="validation", threads=study.threads, cache=cache)
    skipped = {reason: emoji.skipped.get(reason, 0) + count for reason, count in unseen.skipped.items()}
    times = time_encoders(entrants, progress=progress)
    return Comparison(request, times, (same, seen), (), emoji.skipped | skipped), int8_cosines(vectors)


def int8_cosines(vectors: Mapping[str, Float32s]) -> dict[str, dict[str, float]]:
    """Return the mean and the 1st percentile of the cosines of int8 and float32 vectors of the same pictures."""
    found = {}
    for name in (name for name in vectors if name.endswith(INT8)):
        near = cosines(vectors[name.removesuffix(INT8)], vectors[name])
        found[name] = {
            "mean": significant(float(near.mean()), 5),
            "percentile_1": significant(float(np.quantile(near, 0.01)), 5),
        }
    return found


def describe(
    study: Study, pictures_sha256: str, found: Comparison, near: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Return the JSON result: what was measured, and how the models were made; no absolute paths."""
    places = {str(study.work): "WORK", str(study.calibration): "CALIBRATION"}
    entrants = found.request.entrants
    made = {name: as_shown(arguments, places) for name, arguments in commands(study).items()}
    report = to_json(found)
    report["versions"] |= {name: version(name) for name in ("torch", "timm", "open_clip_torch", "onnx")}
    report["machine"]["int8_target"] = find_target("this").name
    configs = {name: study.work / f"{name}.json" for name in study.backbones if (study.work / name).is_dir()}
    report["study"] = {
        "side": SIDE,
        "pictures": PICTURES,
        "pictures_sha256": pictures_sha256,
        "steps": study.steps,
        "batch": study.batch,
        "rate": RATE,
        "commands": made,
        "towers": {entrant.label: contents(entrant) for entrant in entrants},
        "step_seconds": step_seconds(
            configs, dim=entrants[0].model.manifest.space.dim, batch=study.batch, threads=study.threads
        ),
        "int8_cosines": near,
        "latency": latencies(entrants, SIDES),
        "refused": {
            name: as_shown([reason], places) for name in commands(study) if (reason := _reason(study, name)) is not None
        },
        "missing": [name for name in study.backbones if name not in configs],
    }
    return report


def _reason(study: Study, name: str) -> str | None:
    path = study.work / f"{name}.{_REFUSED}"
    return path.read_text(encoding="utf-8") if path.is_file() else None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--heavy", default="lens-base", show_default=True, help="Encodes the galleries.")
@click.option("--shipped", default="lens-tiny", show_default=True, help="A query model to stand beside the others.")
@click.option("--pictures", required=True, type=_PATH, help="To train on: lens-tiny's recipe writes them.")
@click.option("--unseen", required=True, type=_PATH, help="To ask views of: the recipe's validation pictures.")
@click.option("--calibration", required=True, type=_PATH, help="To take int8 ranges from: demo/pictures.")
@click.option("--emojicir", required=True, type=_PATH, help="EmojiCIR's data folder.")
@click.option("--work", required=True, type=_PATH, help="Keeps what is made, for the next run.")
@click.option("--backbone", "backbones", multiple=True, default=BACKBONES, show_default=True, help="Repeatable.")
@click.option("--steps", default=STEPS, show_default=True, type=click.IntRange(1), help="Of each training.")
@click.option("--batch", default=BATCH, show_default=True, type=click.IntRange(2), help="Pictures of a step.")
@click.option(
    "--minutes", default=MINUTES, show_default=True, type=click.FloatRange(0.01), help="Of a search, at most."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads.")
@click.option("--only-make", is_flag=True, help="Train and quantize, and measure nothing yet.")
@click.option("--out", type=_PATH, default=RESULTS / f"{NAME}.json", help="The JSON result.")
def main(
    heavy: str,
    shipped: str,
    pictures: Path,
    unseen: Path,
    calibration: Path,
    emojicir: Path,
    work: Path,
    backbones: Sequence[str],
    steps: int,
    batch: int,
    minutes: float,
    threads: int,
    only_make: bool,
    out: Path,
) -> None:
    """Train every backbone alike, make it int8, and measure all on the same queries. About an hour of one core.

    Vectors, views and checkpoints are kept in the cache that fit uses; a stopped study goes on where it was.
    """
    study = Study(
        heavy, shipped, pictures, unseen, calibration, emojicir, work, tuple(backbones), steps, batch, minutes, threads
    )
    digest = prepare(study)
    make_all(study)
    if only_make:
        return
    with show_progress() as progress:
        found, near = measure(study, entrants_of(study), progress)
    write_file(out, (json.dumps(describe(study, digest, found, near), indent=1, allow_nan=False) + "\n").encode())
    click.echo(to_text(found))


if __name__ == "__main__":
    main()
