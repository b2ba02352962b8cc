"""What `quantization` compares: models with what `pocketlens quantize` makes of them, and the inputs for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketlens.errors import Refused
from pocketlens.model import Model
from pocketlens_bench.measure import ROOT, Options, Progress
from pocketlens_bench.models import NAME, load_torch, mobileclip, temporary_folder
from pocketlens_quantize.folder import Request, quantize_model
from pocketlens_quantize.gate import DEFAULTS
from pocketlens_quantize.target import find_target

ARCHITECTURES = (NAME, "MobileCLIP2-B")
PICTURES = ROOT / "demo" / "pictures"
TEXTS = ROOT / "models" / "lens-base" / "recipe" / "texts.tsv"
_FEW = 140  # of each kind, for a quick run: 64 a side are the least


@dataclass(frozen=True, slots=True)
class Data:
    """Where pictures and texts are read from."""

    pictures: Path
    texts: Path


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to compare: its float32 folder, what `pocketlens quantize` made of it, and open_clip's own.

    Attributes:
        name: for tables.
        model: the float32 folder.
        smaller: the quantized folder, or the reason why there is none.
        clip: pocketlens_export's Clip; None when there is no checkpoint.
    """

    name: str
    model: Model
    smaller: Model | str
    clip: Any = None


def make_subject(name: str, data: Data, options: Options, progress: Progress) -> Subject:
    """Return a model by name, exported and quantized in `options.work` unless it is there already."""
    if name not in ARCHITECTURES:
        assert options.float_model is not None
        model = Model.open(options.float_model)
        return Subject(name, model, quantized(model, data, options, progress))
    exported = mobileclip(options, progress, name=name)
    model = Model.open(exported.folder)
    smaller = quantized(model, data, options, progress)
    return Subject(name, model, smaller, load_torch(exported))


def quantized(model: Model, data: Data, options: Options, progress: Progress) -> Model | str:
    """Return what `pocketlens quantize` makes of a model, made once, or why it refuses."""
    work = temporary_folder() if options.quick or options.work is None else options.work
    out = work / f"{model.manifest.name}-quantized"
    minutes = 1.0 if options.quick else 6.0
    request = Request(
        model,
        find_target("this"),
        data.pictures,
        None,
        data.texts,
        DEFAULTS,
        minutes,
        ort=False,
        memory=work / "trials",
    )
    try:
        if not out.is_dir():
            quantize_model(request, out, progress)
    except Refused as error:
        return str(error).replace(str(model.path), model.manifest.name)
    return Model.open(out)


def data_of(options: Options) -> Data:
    """Return the inputs: for a quick run, a few of them."""
    if not options.quick:
        return Data(PICTURES, TEXTS)
    few, texts = temporary_folder() / "few", temporary_folder() / "few.tsv"
    few.mkdir(exist_ok=True)
    for path in sorted(path for path in PICTURES.rglob("*") if path.is_file())[:_FEW]:
        if not (few / path.name).exists():
            (few / path.name).symlink_to(path)
    texts.write_text("".join(TEXTS.read_text(encoding="utf-8").splitlines(keepends=True)[:_FEW]), encoding="utf-8")
    return Data(few, texts)
