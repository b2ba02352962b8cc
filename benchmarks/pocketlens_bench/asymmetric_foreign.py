"""A light model that no teacher has seen: two views of a picture belong together, and apart from all others.

`python -m pocketlens_bench.asymmetric_foreign` writes a model folder of a space of its own, with an image tower alone.
What a map can make of such a model, and what distillation makes of the same tower, is what the study compares.

The loss is NT-Xent (SimCLR, arXiv 2002.05709) between the embeddings themselves, at temperature 0.1: the picture, and
its view. The views are those that `pocketlens fit distill` has kept, and all else is as it trains: AdamW, rate,
warm-up, half a cosine. A step sees two views of each of its pictures, and so costs what two steps of distillation do.
"""

from __future__ import annotations

import dataclasses
import hashlib
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Int64s
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.model import GOLDEN, Features, ModelManifest, Source, Space
from pocketlens.picture import preprocess
from pocketlens_export import golden
from pocketlens_export.architecture import local_architecture
from pocketlens_export.clip import Clip
from pocketlens_export.distill.drawing import Look
from pocketlens_export.distill.learning import HELD_OUT, Student
from pocketlens_export.distill.recipes import DISTILLATIONS
from pocketlens_export.distill.reinforced import Plan, ReinforcedSet, reinforce
from pocketlens_export.distill.student import build_clip, checkpoint_bytes
from pocketlens_export.embeddings import encode_pictures
from pocketlens_export.fit.console import Bars, cache_folder, open_model
from pocketlens_export.fit.losses import nt_xent
from pocketlens_export.fit.recipe import check_values
from pocketlens_export.fit.seal import seal
from pocketlens_export.fit.training import checkpoint_path, schedule_of, train
from pocketlens_export.folder import Draft, export_image, picture_spec
from pocketlens_export.samples import sample_pictures
from pocketlens_export.space import space_id
from pocketlens_export.split import Split, split_rows

VIEWS = 2
TEMPERATURE = 0.1
_SAMPLES = 60  # generated pictures that parity is measured on, as in `pocketlens export`
_PATH = click.Path(path_type=Path)


class Discrimination:
    """The task of the training loop: a row is a picture.

    Args:
        student: what is trained.
        views: two of each picture; the heavy tower's vectors of them are not looked at.
        split: which pictures are trained on, and by which the held-out loss is taken.
        batch: pictures of a step.
    """

    def __init__(self, student: Student, views: ReinforcedSet, split: Split, *, batch: int) -> None:
        self.network = student
        self.lengths = np.ones(len(split.train), dtype=np.int64)
        self._views, self._split, self._batch = views, split, batch

    def loss(self, rows: Int64s) -> Tensor:
        """Return the loss of a batch of training pictures."""
        return self._loss(self._split.train[rows])

    def held_out_loss(self) -> float:
        """Return the loss of validation pictures, the mean over batches."""
        rows = self._split.validation[:HELD_OUT]
        parts = np.array_split(rows, max(round(len(rows) / self._batch), 1))
        return float(np.mean([float(self._loss(part)) for part in parts]))

    def _loss(self, pictures: Int64s) -> Tensor:
        pixels = self._views.pixels[pictures]  # (k, 2, side, side, 3)
        found = self.network(torch.from_numpy(np.concatenate([pixels[:, 0], pixels[:, 1]])))  # (2k, dim)
        return nt_xent(*found.chunk(2), temperature=TEMPERATURE)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--light", required=True, type=_PATH, help="An open_clip config.")
@click.option("--heavy", required=True, help="The model that views are kept with; it teaches nothing.")
@click.option("--pictures", required=True, type=_PATH, help="A folder of pictures.")
@click.option("--out", required=True, type=_PATH, help="The model folder to write.")
@click.option("--name", default="foreign", show_default=True, help="Of the model and of its space.")
@click.option("--steps", required=True, type=click.IntRange(1), help="Training steps.")
@click.option("--batch", default=128, show_default=True, type=click.IntRange(2), help="Pictures of a step.")
@click.option("--rate", required=True, type=float, help="AdamW's.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads.")
def main(
    light: Path,
    heavy: str,
    pictures: Path,
    out: Path,
    name: str,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    threads: int,
) -> None:
    """Train a light image tower without a teacher, and write it as a model folder."""
    architecture = local_architecture(light, needs_text=False)
    torch.set_num_threads(threads)
    recipe = DISTILLATIONS["fitnet"].recipe
    values = check_values(recipe, {"rate": str(rate)})
    with new_folder(out) as folder, Bars() as bars:
        clip = build_clip(architecture, dim=int(architecture.model_cfg["embed_dim"]), seed=seed, start=None)
        teacher = open_model("--heavy", heavy)
        cache = cache_folder()
        found = encode_pictures(teacher, [pictures], cache=cache, progress=bars.stage, threads=threads)
        look = Look(float(values["crop"]), False, float(values["jitter"]), float(values["background"]))
        views = reinforce(
            found, teacher, picture_spec(architecture), Plan(VIEWS, look, seed),
            cache=cache, progress=bars.stage, threads=threads,
        )  # fmt: skip
        asked = {
            "what": "discrimination", "model": architecture.model_cfg, "views": views.sha256, "steps": steps,
            "batch": batch, "rate": rate, "seed": seed, "threads": threads, "torch": torch.__version__,
        }  # fmt: skip
        path = checkpoint_path(asked, cache, fresh=False)
        task = Discrimination(Student(clip.model.visual, clip.preprocessing), views, split_rows(found.sha256),
                              batch=batch)  # fmt: skip
        train(task, schedule_of(recipe, values, steps=steps, batch=batch, seed=seed), path, report=bars.training)
        clip.model.visual.eval().to(memory_format=torch.contiguous_format)
        seal(folder, write_tower(clip, folder, name))
        verify(folder)
    path.unlink(missing_ok=True)


def write_tower(clip: Clip, folder: Path, name: str) -> ModelManifest:
    """Write an image tower, proven as `pocketlens export` does; return the manifest without its files."""
    spec = picture_spec(clip.architecture)
    pixels = np.stack([preprocess(picture, spec) for picture in sample_pictures(_SAMPLES)])
    draft = Draft(folder, lambda line: click.echo(line, err=True))
    dim = export_image(clip, spec, pixels, None, draft)
    golden.write_golden(folder / GOLDEN, draft.arrays)
    own = space_id(name, clip.model.visual, clip.preprocessing)
    digest = hashlib.sha256(checkpoint_bytes(clip.model.visual)).hexdigest()
    return ModelManifest(
        name=name,
        licence="none (of the study)",
        source=Source(clip.architecture.name, f"sha256:{digest}"),
        space=Space(own, dim),
        text=None,
        image=dataclasses.replace(spec, features=None if draft.features is None else Features(own, *draft.features)),
        inversion={},
        concepts=None,
        quality=draft.quality,
        quantization=None,
        made_with={package: version(package) for package in ("pocketlens", "torch", "timm", "onnx")},
        files={},
    )


if __name__ == "__main__":
    main()
