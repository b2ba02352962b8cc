"""What is asked of an indexing run, and the settings that its shards depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pocketlens import __version__
from pocketlens._native import ort
from pocketlens.attributes import RECORDED, Schema, check_schema, check_values, infer_schema
from pocketlens.encoder import picture_spec
from pocketlens.errors import MissingPart
from pocketlens.graph import PROCESSOR, default_threads
from pocketlens.model import Model
from pocketlens_export.gallery.decoders import DEADLINE_S
from pocketlens_export.gallery.plan import SHARD_ENTRIES
from pocketlens_export.gallery.run_folder import Settings
from pocketlens_export.gallery.sources.columns_kept import Kept

CUDA = "CUDAExecutionProvider"
_BATCHES = {PROCESSOR: 1, CUDA: 64}  # more gain little on a processor, or lose (results/scale.json)
Engine = Literal["local", "ray"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be indexed, and how.

    Attributes:
        sources: see `sources.expand.open_sources`.
        out: the bundle folder to write; it appears complete or not at all.
        model: the gallery's encoder.
        query_model: gives the bundle its towers; a tower it lacks comes from `model`.
        rescore: keep float16 originals beside the codes.
        replace: allow `out` to exist.
        restart: forget an unfinished run.
        formats: picture formats to read beside JPEG, PNG and WebP.
        attributes: what filters may ask for beside what is recorded of every picture, by id.
        types: of attributes by name; those left out follow from the values.
        kept: columns of the sources that become attributes.
        image_column: of Parquet files.
        threads: of the encoder; None is the usable cores, at most 4.
        processes: that decode; None is the usable cores.
        shard: entries of a shard: what a run that is killed may have to do again.
        deadline_s: how long a picture may take to decode, in seconds.
        engine: who makes shards: "local", this process, or "ray", see `ray_engine`.
        address: of a Ray cluster; None starts one on this machine.
        workers: of Ray at once; None is as many as there is room for.
        device: that encodes; "auto" is CUDA where onnxruntime has it.
        skipped: file that gets a line of JSON for every entry that was skipped.
    """

    sources: Sequence[str | Path]
    out: Path
    model: Model
    query_model: Model
    rescore: bool = True
    replace: bool = False
    restart: bool = False
    formats: Sequence[str] = ()
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[Kept] = ()
    image_column: str | None = None
    threads: int | None = None
    processes: int | None = None
    shard: int = SHARD_ENTRIES
    deadline_s: float = DEADLINE_S
    engine: Engine = "local"
    address: str | None = None
    workers: int | None = None
    device: Device = "auto"
    skipped: Path | None = None

    @property
    def unfinished(self) -> Path:
        """Where the run is kept until it is finished."""
        return self.out.parent / f".{self.out.name}.unfinished"


def read_attributes(request: Request) -> tuple[Schema, dict[str, dict[str, Any]]]:
    """Return the types of all attributes that are given, and the values by id, checked.

    Raises:
        BadQuery: one cannot be an attribute.
    """
    declared = {kept.name: kept.type for kept in request.kept if kept.type is not None}
    inferred = infer_schema(request.attributes.values())
    types = {**{name: RECORDED.get(name, kind) for name, kind in inferred.items()}, **declared, **request.types}
    schema = check_schema(types)
    given = {id: check_values(schema, values, of=id) for id, values in request.attributes.items()}
    return {name: schema[name] for name in types}, given


def settings_of(
    request: Request,
    formats: Sequence[str],
    sources: Sequence[str],
    types: Mapping[str, str],
    given: Mapping[str, Mapping[str, Any]],
    *,
    base: str | None = None,
) -> Settings:
    """Return what shards depend on; `base` is the sha256 of the gallery.json that is updated.

    Raises:
        MissingPart: the model has no image tower, or onnxruntime cannot use the device.
    """
    manifest = request.model.manifest
    kept = [(each.name, each.type) for each in request.kept]
    about = json.dumps([given, types, kept, request.image_column], sort_keys=True)
    provider = _provider(request.device)
    return Settings(
        sources=tuple(source.encode(errors="backslashreplace").decode() for source in sources),
        base=base,
        model=manifest.name,
        space=manifest.space,
        image_sha256=manifest.files[picture_spec(request.model).file].sha256,
        formats=tuple(formats),
        attributes=hashlib.sha256(about.encode(errors="surrogatepass")).hexdigest(),
        provider=provider,
        threads=request.threads or default_threads(),
        batch=_BATCHES[provider],
        shard=request.shard,
        versions=versions_here(),
    )


def versions_here() -> dict[str, str]:
    """Return the versions of what computes on this machine."""
    packages = {name: version(name) for name in ("numpy", "pillow")}
    return {
        "pocketlens": __version__, "python": platform.python_version(), **packages, "onnxruntime": ort.__version__,
    }  # fmt: skip


def _provider(device: Device) -> str:
    has_cuda = CUDA in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise MissingPart(
            "this installation's onnxruntime has no CUDA: pip uninstall onnxruntime; pip install onnxruntime-gpu"
        )
    return CUDA if has_cuda and device != "cpu" else PROCESSOR
