"""Running ONNX graphs from memory, with the options of the runtime, on one thread."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from pocketlens._types import Float32s
from pocketlens.graph import open_exactly
from pocketlens_quantize.graph import WEIGHTED, consumers, weighted_nodes

Feed: TypeAlias = Mapping[str, NDArray[Any]]

_EMBEDDING = ["embedding"]  # what queries are searched by; features are a second output of some image towers
_PASSES = re.compile(r"(_nchwc|_token_\d+|_quant|_Q[48]|/duplicated\w*)+$")  # what onnxruntime adds to a node's name


class FeedReader:
    """Feeds one after the other, as onnxruntime's calibrators take them (its CalibrationDataReader)."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, or None after the last."""
        return next(self._feeds, None)

    def __iter__(self) -> FeedReader:
        return self

    def __next__(self) -> Feed:
        return next(self._feeds)


def open_session(model: onnx.ModelProto | bytes | Path, *, profile: Path | None = None) -> Any:
    """Return an onnxruntime session on one thread; `profile` is the prefix of a file of node times."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if isinstance(model, Path):
        return open_exactly(str(model), options)
    return open_exactly(model.SerializeToString() if isinstance(model, onnx.ModelProto) else model, options)


def embed(session: Any, feeds: Sequence[Feed]) -> Float32s:
    """Return the embeddings, float32 (n, dim), of feeds run one after the other."""
    return np.concatenate([session.run(_EMBEDDING, feed)[0] for feed in feeds])


def features_cosines(expected: Any, found: Any, feeds: Sequence[Feed]) -> Float32s | None:
    """Return the cosine of each feed's features by two sessions, flattened, float32 (n,); None where one gives none."""
    if any(all(value.name != "features" for value in session.get_outputs()) for session in (expected, found)):
        return None
    near = []
    for feed in feeds:  # one at a time: all of them would fill the memory
        first, second = (session.run(["features"], feed)[0].ravel() for session in (expected, found))
        near.append(float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second))))
    return np.array(near, dtype=np.float32)


def alternate(sessions: Mapping[str, Any], feeds: Sequence[Feed], *, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Return each session's times in milliseconds, (rounds,): every round runs one feed through all, by turns."""
    times: dict[str, list[float]] = defaultdict(list)
    for name, session in sessions.items():
        session.run(_EMBEDDING, feeds[0])  # the first run allocates
        times[name] = []
    for turn in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(_EMBEDDING, feeds[turn % len(feeds)])
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: np.array(found) for name, found in times.items()}


def ratio(times: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the median over rounds of time over reference: each round had one input for both and one moment."""
    return float(np.median(times / reference))


def node_times(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, tuple[str, float]]:
    """Return operator and median microseconds by node, as onnxruntime's profile names nodes after its passes."""
    with tempfile.TemporaryDirectory(prefix="pocketlens-profile-") as folder:
        session = open_session(model, profile=Path(folder) / "run")
        for feed in feeds:
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"])
    return {_PASSES.sub("", name): (op_type, float(np.median(found))) for (name, op_type), found in times.items()}


def by_weighted_node(model: onnx.ModelProto, times: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    """Return the microseconds of each convolution and product of a prepared graph, from `node_times` of any form of it.

    onnxruntime names a fused node by its first part or by the value that its last part makes.
    """
    readers = consumers(model)
    found: dict[str, float] = {}
    for node in weighted_nodes(model):
        names, value = [node.name, node.output[0]], node.output[0]
        while len(readers.get(value, [])) == 1 and readers[value][0].op_type not in WEIGHTED and len(names) < 8:
            value = readers[value][0].output[0]
            names += [value]
        known = [times[name][1] for name in names if name in times]
        if known:
            found[node.name] = known[0]
    return found
