"""Trains lens-base's towers on together, into what ships: `python together.py --work DIR --emojicir DIR --crops DIR`.

Goes on from the student that build.py leaves, DIR/lens-base.pt, adds emoji with skin tones, trains the trunk's last
stages, the projector and the text tower's last layers (joint.py), and blends. Writes DIR/together/lens-base.json and
.pt, an open_clip model, and together.json beside this file. The share that ships was chosen on the validation halves;
it alone is measured on the test halves.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import build
import checkpoint
import numpy as np
import torch
from evaluate import measure
from features import Maps, cached_maps
from joint import JointPlan, Known, Towers, train_joint
from late import Early, Late
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from pictures import Picture, clipart, decodable, emoji, stamps, toned
from sources import fetch_all
from split import TEST, TRAIN, VALIDATION
from teacher import Photographs
from texts import TextBank, TextTower, class_texts, phrases, picture_texts
from timm.layers.mlp import Mlp
from trunk import package_weights, proven_trunk

SHIPS = "lens-base: both towers trained together"
"""Its row in the table."""

SHARES = (0.5, 0.7, 0.85, 1.0)
PHOTOGRAPHS = 5_000
"""At most so many crops and composites, by chance."""

KINDS_OF_PHOTOGRAPH = (
    "composite", "endless-sky-data", "gcompris-qt-data", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04",
    "supertuxkart-data", "ukui-wallpapers",
)  # fmt: skip
"""Folders of lens-tiny's training pictures that hold photographs."""


def photographs(folder: Path) -> list[Picture]:
    """Return photographs' crops from the folder that lens-tiny's training_pictures.py writes; they have no texts."""
    found = [path for kind in KINDS_OF_PHOTOGRAPH for path in sorted((folder / kind).glob("*.webp"))]
    random.Random(build.SEED).shuffle(found)
    return [Picture(path, path.parent.name, "photo", ("",), TRAIN) for path in sorted(found[:PHOTOGRAPHS])]


def projector_of(weights: Path) -> Mlp:
    """Return the projector of an open_clip checkpoint of lens-base."""
    prefix, projector = "visual.head.mlp.", Mlp(1280, 768, 384)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    projector.load_state_dict({name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)})
    return projector.eval()


def known(towers: Towers, examples: Sequence[Picture], anchors: Maps, bank: TextBank, imagined: Photographs) -> Known:
    """Return what must stay where it is."""
    texts = sorted({text for group in class_texts() for text in group})
    texts += [phrase for name in IMAGENET_CLASSNAMES for phrase in phrases(name)]
    texts += sorted({word for picture in examples for word in picture_texts(picture)[1] if word in bank.row})
    vectors = torch.from_numpy(bank.vectors)
    return Known(
        photographs=anchors,
        imagined=imagined,
        late=copy.deepcopy(towers.late).eval(),
        texts=texts,
        vectors=vectors[bank.rows(texts)],
        classes=vectors[bank.rows(phrases(name)[-1] for name in IMAGENET_CLASSNAMES)],
    )


def recalls(towers: Towers, held: list[Picture], maps: Maps, work: Path) -> dict[str, Any]:
    """Return the recall of every gallery of held-out pictures, all of one part."""
    spoken = TextBank([picture.caption for picture in held], work, towers.text)
    return measure(lambda vectors: vectors, build.groups(held, towers.encode(maps), held[0].part), spoken)


def run(work: Path, emojicir: Path, crops: Path, results: Path) -> None:
    """Train, measure and write."""
    stages, plan, packages = build.Stages(), JointPlan(), fetch_all(work / "cache")
    drawings, judged = decodable(emoji(packages) + clipart(packages)), decodable(stamps(packages))
    trunk, _ = proven_trunk(build.proof_pixels(judged))
    towers = Towers(Early(trunk), Late(trunk, projector_of(work / "lens-base.pt")), TextTower())
    examples = [picture for picture in drawings if picture.part == TRAIN] + toned(emojicir)
    held, last = ([p for p in drawings + judged if p.part == part] for part in (VALIDATION, TEST))
    grounds = sorted(packages["lomiri-wallpapers-16.04"].folder.rglob("*.jpg"))
    maps = cached_maps(towers.early, examples, build.VIEWS, grounds, work)
    anchors = cached_maps(towers.early, photographs(crops), 1, [], work)
    seen, last_seen = (cached_maps(towers.early, some, 1, [], work) for some in (held, last))
    stages.done("early maps")
    bank = build.text_bank(drawings, judged, work)
    imagined = Photographs(pooled(towers, maps), package_weights()["_fc.weight"])
    before = copy.deepcopy(towers)
    train_joint(
        towers.late, towers.text, examples, maps, known(towers, examples, anchors, bank, imagined), plan, build.SEED
    )
    stages.done("train both towers")
    tables = {"before": recalls(before, held, seen, work)}
    for share in SHARES:
        tables[f"{share:.0%} of the training"] = recalls(towers.blended(before, share), held, seen, work)
    chosen, rng = towers.blended(before, plan.trained_share), np.random.default_rng(build.SEED)
    tested = {SHIPS: recalls(chosen, last, last_seen, work)}
    chosen.late.store(trunk, maps.draw(rng.permutation(len(maps))[:256], rng))
    placed = chosen.encode(seen)
    model = checkpoint.assemble(trunk, chosen.late.head, chosen.text)
    read_back = build.write_model(model, held, placed, chosen.text, work / "together")
    stages.done("measure, write and read back")
    facts = {
        "what": "recall in per cent; validation by how much of the trained weights is taken, test of what ships",
        "plan": asdict(plan),
        "machine": build.machine(),
        "seconds": stages.seconds,
        "pictures": {"trained on": len(examples), "anchors": len(anchors), VALIDATION: len(held), TEST: len(last)},
        "read_back": read_back,
        "recall": {VALIDATION: tables, TEST: tested},
    }
    results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def pooled(towers: Towers, maps: Maps) -> torch.Tensor:
    """Return pooled features float32 (n, 1280) of the first view of each picture."""
    with torch.inference_mode():
        return torch.cat([towers.late.features(some) for some in maps.clean(64)])


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder that build.py wrote lens-base.pt into")
    parser.add_argument("--emojicir", type=Path, required=True, help="the folder that EmojiCIR is built in")
    parser.add_argument("--crops", type=Path, required=True, help="training pictures of lens-tiny's recipe")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("together.json"))
    parser.add_argument("--threads", type=int, default=2, help="of torch and ONNX Runtime (default 2)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(build.SEED)
    folders = (arguments.work, arguments.emojicir, arguments.crops, arguments.results)
    run(*(folder.resolve() for folder in folders))


if __name__ == "__main__":
    main()
