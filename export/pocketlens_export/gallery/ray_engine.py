"""`--engine ray`: shards are made by actors of Ray Data, on this machine or over a cluster.

Ray only schedules. An actor runs what the local engine runs, `ShardMaker`, and writes shards where the local engine
would: the run's folder, the sources and the model must have the same paths on every machine. What travels is numbers of
shards and counts. A shard that was begun by a machine that died is made again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from pocketlens.errors import FormatError, MissingPart, PocketlensError
from pocketlens.graph import PROCESSOR
from pocketlens_export.gallery.pipeline import Outcome
from pocketlens_export.gallery.request import versions_here
from pocketlens_export.gallery.shard_maker import ShardMaker, Work

_STORE_BYTES = 100 << 20  # of a local cluster's memory for what travels
_MOST_AT_ONCE = 8  # shards that an actor is handed


def make_on_ray(
    work: Work, numbers: Sequence[int], tell: Outcome, *, address: str | None, workers: int | None
) -> tuple[dict[str, float], float]:
    """Make shards; return what share of the time each stage was busy, and the seconds until the actors were ready.

    Args:
        work: what it takes.
        numbers: of the shards.
        tell: called for every entry, once its shard is made.
        address: of a running cluster, such as "auto" or "ray://head:10001"; None starts one on this machine.
        workers: actors at once; None is as many as the cluster's processors, or CUDA devices, allow.

    Raises:
        MissingPart: Ray is not installed.
        FormatError: the cluster cannot be reached, or has other versions of what computes.
        PocketlensError: what making a shard raised.
    """
    ray = _import_ray()
    began = time.perf_counter()
    busy: list[dict[str, float]] = []
    at_work = 0.0
    with redirect_stdout(sys.stderr):  # where Ray tells of a machine that died, until it is shut down
        try:
            _start(ray, address)
            for made in _shards(ray, work, numbers, workers).iter_rows():
                for was_read in [True] * int(made["read"]) + [False] * int(made["skipped"]):
                    tell(was_read)
                busy.append({name: float(made[name]) for name in ("decoding", "encoding", "writing")})
                at_work = max(at_work, float(made["at_work_s"]))
        except ray.exceptions.RayError as error:
            raise _ours(error) from error
        finally:
            ray.shutdown()
    shares = {name: float(np.mean([each[name] for each in busy])) for name in busy[0]}
    return shares, time.perf_counter() - began - at_work


def _shards(ray: Any, work: Work, numbers: Sequence[int], workers: int | None) -> Any:
    """Return a dataset whose rows come as shards are made."""
    cores = max(work.threads, work.decoding.processes)
    gpus = 0 if work.provider == PROCESSOR else 1
    workers = workers or _room(ray, cores, gpus)
    at_once = min(max(len(numbers) // (4 * workers), 1), _MOST_AT_ONCE)
    blocks = -(-len(numbers) // at_once)
    rows = [{"number": number} for number in numbers]
    return ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Maker,
        fn_constructor_args=(work, versions_here()),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cores,
        num_gpus=gpus,
    )


class _Maker:
    """An actor: makes the shards that it is handed, and tells what became of their entries."""

    def __init__(self, work: Work, versions: dict[str, str]) -> None:
        here = versions_here()
        if here != versions:
            raise FormatError(f"{os.uname().nodename} has {here}, expected {versions}, as where the run was started")
        self._maker = ShardMaker(work)
        self._ready = time.perf_counter()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes: list[bool] = []
        for _ in self._maker.make(batch["number"].tolist(), outcomes.append):
            pass
        told: dict[str, float] = {"read": sum(outcomes), "skipped": len(outcomes) - sum(outcomes), **self._maker.busy}
        told["at_work_s"] = time.perf_counter() - self._ready
        return {name: np.array([value]) for name, value in told.items()}


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingPart('--engine ray needs Ray, which is not installed: pip install "pocketlens[ray]"') from error
    return ray


def _start(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"address": address} if address else {
        "object_store_memory": _STORE_BYTES, "include_dashboard": False,
    }  # fmt: skip
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise FormatError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _room(ray: Any, cores: int, gpus: int) -> int:
    there = ray.cluster_resources()
    fits = [int(there.get("CPU", 1)) // cores, *([int(there.get("GPU", 0)) // gpus] if gpus else [])]
    return max(min(fits), 1)


def _ours(error: Any) -> PocketlensError:
    """Return our own error that a task raised, else one that says what Ray says."""
    cause: BaseException = error
    while not isinstance(cause, PocketlensError):
        deeper = getattr(cause, "cause", None) or cause.__cause__
        if deeper is None:
            return PocketlensError(f"Ray: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}")
        cause = deeper
    return cause
