"""From a float32 model folder to a smaller one with its proof, or to a refusal that says what was missed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort

from pocketlens.errors import CorruptFile, FormatError, Refused
from pocketlens.files import new_folder, sha256_of
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, GOLDEN, MANIFEST, VERSION, FileRecord, Model, ModelManifest, Quantization
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.inputs import Side, read_sides
from pocketlens_quantize.ort_format import convert_to_ort, write_operators
from pocketlens_quantize.plan import STORAGE, Tower
from pocketlens_quantize.proof import Pair, TowerName, measure, misses
from pocketlens_quantize.report import TowerReport, write_report
from pocketlens_quantize.search import Found, Search, describe, nearest
from pocketlens_quantize.target import Target, find_target, processor_name
from pocketlens_quantize.tolerance import tolerance_of
from pocketlens_quantize.trial import Trial, Trials

OPERATORS = "required_operators.config"
_PROFILED = 12  # inputs on which node times are taken


@dataclass(frozen=True, slots=True)
class Request:
    """What to make.

    Attributes:
        model: an opened float32 model folder.
        target: the processor that will run it.
        calibration: pictures to steer by; half of them are set aside to measure on unless `measuring` is given.
        measuring: other pictures, for the proof alone.
        texts: queries, one a line; None: built-in ones.
        gates: what each tower must reach.
        minutes: the longest time to search.
        ort: whether to write .ort files, with the list of operators that a minimal build of onnxruntime needs.
        memory: folder of the trials that a later run resumes from.
    """

    model: Model
    target: Target
    calibration: Path | None
    measuring: Path | None
    texts: Path | None
    gates: Mapping[str, Gate]
    minutes: float
    ort: bool
    memory: Path


def quantize_model(request: Request, out: Path, progress: Callable[[str], None]) -> ModelManifest:
    """Write the smaller model folder and return its manifest. Each tower is searched and proven by itself and together.

    Raises:
        FormatError: the model is quantized already, or the pictures or texts do not do; or `out` exists.
        Refused: nothing found reaches the gate; the message has the nearest plan and what it misses by.
    """
    model = request.model
    if model.manifest.quantization is not None:
        target = model.manifest.quantization.target
        raise FormatError(f"{model.path} is already quantized (for {target}); start from the float32 folder")
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before the search

    with new_folder(out) as folder:
        steering, proving = read_sides(
            model,
            calibration=request.calibration,
            measuring=request.measuring,
            texts=request.texts,
            progress=progress,
        )
        towers = _towers(request, steering, progress)
        found = _search_all(request, towers, steering, progress)
        pairs = _write_towers(request, towers, found, folder)
        progress("measuring on inputs that were kept aside")
        quality = measure(pairs, proving, timed=request.target.timed_here)
        _check_gates(model, request.gates, found, quality)
        _warn_of_slow_files(request, quality, progress)
        manifest = _draft(request, found, quality, steering, proving)
        _write_rest(model, found, folder)
        reports = [TowerReport(name, each, request.gates[name]) for name, each in found.items()]
        write_report(folder, manifest, reports)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}
        manifest = dataclasses.replace(manifest, files=files)
        write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
        try:
            verify(folder)
        except CorruptFile as error:
            reason = str(error).replace(str(folder), str(out))
            raise Refused(f"{model.path}: the smaller folder misses its golden values: {reason}") from error
    return manifest


def _towers(request: Request, steering: Side, progress: Callable[[str], None]) -> dict[TowerName, Tower]:
    """Return the towers that can be measured: a text tower without a tokenizer cannot."""
    manifest = request.model.manifest
    towers: dict[TowerName, Tower] = {}
    if manifest.text is not None and manifest.can_read:
        graph = onnx.load(str(request.model.file(manifest.text.file)))
        towers["text"] = Tower("text", graph, steering.texts, request.target)
    elif manifest.text is not None:
        progress("text: stays as it is, for without a tokenizer nothing can be measured")
    if manifest.image is not None:
        graph = onnx.load(str(request.model.file(manifest.image.file)))
        towers["image"] = Tower("image", graph, steering.pictures, request.target)
    if not towers:
        raise FormatError(f"{request.model.path}: the text tower has no tokenizer, so that nothing can be measured")
    return towers


def _search_all(
    request: Request, towers: Mapping[TowerName, Tower], steering: Side, progress: Callable[[str], None]
) -> dict[TowerName, Found]:
    end = time.monotonic() + request.minutes * 60
    found: dict[TowerName, Found] = {}
    for left, (name, tower) in zip(range(len(towers), 0, -1), towers.items(), strict=True):
        inputs = steering.steering(name)
        trials = Trials(tower, inputs, memory=request.memory, target=request.target)
        deadline = time.monotonic() + (end - time.monotonic()) / left
        search = Search(tower, trials, request.gates[name], deadline=deadline, progress=progress)
        found[name] = search.run(inputs.feeds[:_PROFILED])
        if found[name].best is None:
            raise Refused(_nothing_passed(request, name, found[name]))
        progress(f"{name}: chosen: {describe(_best(found[name]))}")
    return found


def _nothing_passed(request: Request, name: str, found: Found) -> str:
    best, gate = nearest(found.trials), request.gates[name]
    if not found.trials:
        return f"{request.model.path}: {request.minutes:g} minutes did not suffice to try any plan, give --minutes"
    if best is None:
        return f"{request.model.path}: no plan for the {name} tower could be built: {found.trials[0].failed}"
    missed = gate.misses(
        cosine=best.cosine_mean, agreement=best.agreement_at_10, same_in_batch=best.same_in_batch, lost=None
    )
    short = "" if found.finished else f"; {request.minutes:g} minutes did not suffice for all plans, give --minutes"
    why = "; ".join(missed) or "it reaches the gate with too little to spare, or is not faster than float32"
    return f"{request.model.path}: nothing reaches the {name} tower's gate{short}. The nearest, {describe(best)}: {why}"


def _check_gates(
    model: Model, gates: Mapping[str, Gate], found: Mapping[TowerName, Found], quality: Mapping[str, float]
) -> None:
    for name, each in found.items():
        missed = misses(name, gates[name], quality, is_faster=_best(each).plan.method not in STORAGE)
        if missed:
            raise Refused(
                f"{model.path}: on inputs kept aside the {name} tower misses its gate, though it reached it where the "
                f"search looked: {'; '.join(missed)}. It was {describe(_best(each))}. More pictures and texts help"
            )


def _warn_of_slow_files(request: Request, quality: Mapping[str, float], progress: Callable[[str], None]) -> None:
    """Say so when a tower that stays float32 is slower as .ort, which cannot hold its convolutions' blocked layout."""
    for name in ("text", "image"):
        ratio = quality.get(f"{name}_latency_ratio", 0.0)
        if request.ort and ratio > 1:
            progress(f"{name}: as .ort it takes {ratio:.2f} of float32's time; only minimal builds need that format")


def _best(found: Found) -> Trial:
    assert found.best is not None
    return found.best


def _draft(
    request: Request, found: Mapping[TowerName, Found], quality: dict[str, float], steering: Side, proving: Side
) -> ModelManifest:
    """Return the manifest without its files."""
    source = request.model.manifest
    text, image = source.text, source.image
    suffix = ".ort" if request.ort else ".onnx"
    if text is not None and "text" in found:
        text = dataclasses.replace(text, file=f"text{suffix}", precision=_best(found["text"]).plan.label)
    if image is not None and "image" in found:
        image = dataclasses.replace(image, file=f"image{suffix}", precision=_best(found["image"]).plan.label)
    gate = {
        f"{name}_{what}": value
        for name in found
        for what, value in dataclasses.asdict(request.gates[name]).items()
        if what != "recall" or "text_labelled" in quality
    }
    return dataclasses.replace(
        source,
        text=text,
        image=image,
        quality={f"float_{name}": value for name, value in source.quality.items()} | quality,
        quantization=Quantization(
            target=request.target.name,
            timed_on=f"{processor_name()} ({find_target('this').name}), 1 thread, onnxruntime {ort.__version__}"
            if request.target.timed_here
            else None,
            gate=gate,
            calibration_sha256=steering.sha256,
            measuring_sha256=proving.sha256,
        ),
        made_with=source.made_with | {"onnxruntime": ort.__version__, "onnx": version("onnx")},
    )


def _write_towers(
    request: Request, towers: Mapping[TowerName, Tower], found: Mapping[TowerName, Found], folder: Path
) -> dict[TowerName, Pair]:
    """Write the chosen plans' files and return them beside the float32 files."""
    pairs: dict[TowerName, Pair] = {}
    architecture: Literal["x86-64", "arm64"] = "arm64" if request.target.name == "arm64" else "x86-64"
    for name, each in found.items():
        spec = request.model.manifest.text if name == "text" else request.model.manifest.image
        assert spec is not None
        path = folder / f"{name}.onnx"
        onnx.save(towers[name].build(_best(each).plan), str(path))
        if request.ort:
            convert_to_ort(path, out=path.with_suffix(".ort"), target=architecture)
            path.unlink()
        pairs[name] = Pair(request.model.file(spec.file), path.with_suffix(".ort") if request.ort else path)
    if request.ort:
        write_operators([pair.smaller for pair in pairs.values()], out=folder / OPERATORS)
    return pairs


def _write_rest(model: Model, found: Mapping[TowerName, Found], folder: Path) -> None:
    """Copy every file that is no tower, and give the golden values the bars of the new precisions."""
    specs = (model.manifest.text, model.manifest.image)
    replaced = {spec.file for name, spec in zip(("text", "image"), specs, strict=True) if spec and name in found}
    for name in model.manifest.files:
        if name not in replaced | {GOLDEN}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(model.file(name).read_bytes())
    with np.load(model.file(GOLDEN), allow_pickle=False) as golden:
        arrays = dict(golden)
    for name, each in found.items():
        bar = tolerance_of(_best(each).plan.method)
        arrays |= {f"{name}_min_cosine": np.float32(bar.min_cosine), f"{name}_max_abs": np.float32(bar.max_abs)}
    np.savez_compressed(folder / GOLDEN, allow_pickle=False, **arrays)
