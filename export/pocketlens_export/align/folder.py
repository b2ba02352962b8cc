"""From two models and the same pictures to a query model, all of it in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pocketlens.errors import FormatError, MissingPart
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.model import Model, ModelManifest
from pocketlens_export.align.maps import Map, Progress
from pocketlens_export.align.parts import Kind, Part, Setup, fit_pictures, fit_texts
from pocketlens_export.align.quality import recalls
from pocketlens_export.align.report import Aligned, write_report
from pocketlens_export.align.towers import Tower, write_towers
from pocketlens_export.fit.seal import seal

MAPPED = ", float32 map"


@dataclass(frozen=True, slots=True)
class Request:
    """What to align.

    Attributes:
        light: an opened model folder of any precision, whose towers get the map.
        heavy: the one whose space is the target.
        pictures: folders of pictures that both see.
        texts: a file of texts, one a line, for the text towers; None: the query model has no text tower.
        kind: of the map.
        name: of the query model; None: "<light>-in-<heavy>".
        seed: of views, weights and order.
        threads: of torch and onnxruntime; None: their own choice.
        cache: folder that vectors are kept below.
    """

    light: Model
    heavy: Model
    pictures: tuple[Path, ...]
    texts: Path | None
    kind: Kind
    name: str | None
    seed: int
    threads: int | None
    cache: Path


def align_models(
    request: Request, out: Path, *, replace: bool, progress: Progress, warn: Callable[[str], None]
) -> tuple[ModelManifest, Aligned]:
    """Write a query model: the light model's towers in the heavy model's space. Return its manifest and its report.

    Args:
        request: what to align.
        out: the folder to write; it appears complete or not at all.
        replace: allow `out` to exist.
        progress: told of what takes long.
        warn: told what the user should know.

    Raises:
        FormatError: the models are one, there are too few pictures or texts, a tower gives NaN, or `out` exists.
        MissingPart: a model lacks an image tower, or with texts a text tower or a tokenizer.
        Refused: a folded graph does not compute what its map does.
    """
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before everything is encoded

    check_models(request)
    with new_folder(out, replace=replace) as folder:
        setup = Setup(request.light, request.heavy, request.kind, request.seed, request.threads, request.cache,
                      progress, warn)  # fmt: skip
        parts: dict[Tower, Part] = {"image": fit_pictures(setup, request.pictures)}
        if request.texts is not None:
            parts["text"] = fit_texts(setup, request.texts)
        light, heavy = request.light.manifest.name, request.heavy.manifest.name
        aligned = Aligned(light, heavy, request.kind, request.seed, tuple(parts.values()), _notes(request))
        manifest = _write(request, folder, parts, aligned)
        verify(folder)
    return manifest, aligned


def check_models(request: Request) -> None:
    """Raise unless the two models are different ones and have the towers that are needed.

    Raises:
        FormatError: they are of one space, or have the same image tower.
        MissingPart: a tower or a tokenizer is missing.
    """
    light, heavy = request.light, request.heavy
    for side, model in (("light", light), ("heavy", heavy)):
        manifest = model.manifest
        if manifest.image is None:
            raise MissingPart(f"{model.path}: the {side} model {manifest.name} has no image tower, expected one")
        if request.texts is not None and not manifest.can_read:
            lacks = "text tower" if manifest.text is None else "tokenizer"
            raise MissingPart(
                f"{model.path}: the {side} model {manifest.name} has no {lacks}, so that no map can be fitted on the "
                f"texts of {request.texts}"
            )
    if light.manifest.space.id == heavy.manifest.space.id:
        raise FormatError(
            f"{light.path} is of the space of {heavy.path} already, {heavy.manifest.space.id}: there is nothing to map"
        )
    if _image_sha256(light) == _image_sha256(heavy):
        raise FormatError(f"{light.path} and {heavy.path} have the same image tower, expected two different ones")


def _image_sha256(model: Model) -> str:
    assert model.manifest.image is not None
    return model.manifest.files[model.manifest.image.file].sha256


def _notes(request: Request) -> tuple[str, ...]:
    """Return what the query model lacks of the light one, a line each."""
    light, heavy = request.light.manifest, request.heavy.manifest
    notes = []
    if light.inversion or light.concepts is not None:
        notes.append(f"The inversion networks and names of {light.name} belong to its own space and are left out.")
    if request.texts is None and heavy.text is not None:
        notes.append(
            f"It has an image tower alone. Texts are asked through {heavy.name}'s text tower: give it to `pocketlens "
            "pack` as --text, or map the light one too with --texts."
        )
    elif request.texts is None:
        notes.append(f"It has an image tower alone, and {heavy.name} has no text tower: texts cannot be asked.")
    return tuple(notes)


def _write(request: Request, folder: Path, parts: dict[Tower, Part], aligned: Aligned) -> ModelManifest:
    light, heavy = request.light.manifest, request.heavy.manifest
    maps: dict[Tower, Map] = {tower: part.fitted.map for tower, part in parts.items()}
    write_towers(request.light, maps, folder)
    image, text = light.image, light.text if "text" in parts else None
    assert image is not None
    if text is not None and text.tokenizer is not None:
        (folder / text.tokenizer).write_bytes(request.light.file(text.tokenizer).read_bytes())
    write_report(folder, aligned)
    return seal(folder, dataclasses.replace(
        light,
        name=request.name or f"{light.name}-in-{heavy.name}",
        licence=_licence(light, heavy),
        space=heavy.space,
        image=dataclasses.replace(image, precision=_precision(image.precision)),
        text=None if text is None else dataclasses.replace(text, precision=_precision(text.precision)),
        inversion={},
        concepts=None,
        quality=_quality(parts),
        made_with=light.made_with | {name: version(name) for name in _packages(request)},
    ))  # fmt: skip


def _quality(parts: dict[Tower, Part]) -> dict[str, float]:
    quality: dict[str, float] = {}
    for tower, part in parts.items():
        prefix = "asymmetric_" if tower == "image" else "asymmetric_text_"
        quality |= recalls(part.ranks, prefix) | {f"{prefix}mean_cosine": part.mean_cosine}
    return quality


def _licence(light: ModelManifest, heavy: ModelManifest) -> str:
    if light.licence == heavy.licence:
        return light.licence
    return f"{light.licence}; the map was fitted to {heavy.name}: {heavy.licence}"


def _precision(light: str) -> str:
    return light if light == "float32" or light.endswith(MAPPED) else light + MAPPED


def _packages(request: Request) -> Sequence[str]:
    return ("pocketlens", "numpy", "onnx", *(("torch",) if request.kind == "residual-mlp" else ()))
