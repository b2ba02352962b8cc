"""Why a tower is as it is: its nodes by share of time and by error. No model is written; errors are remembered."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens_quantize.graph import constants, expose, weighted_nodes
from pocketlens_quantize.inputs import Side, read_sides
from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.session import Feed, by_weighted_node, node_times, open_session
from pocketlens_quantize.target import Target
from pocketlens_quantize.trial import Trials

Row: TypeAlias = dict[str, str | float | None]
_PROFILED = 24


def explain_model(
    model: Model,
    target: Target,
    *,
    calibration: Path | None,
    measuring: Path | None,
    texts: Path | None,
    memory: Path,
    progress: Callable[[str], None],
) -> list[Row]:
    """Return a row for each convolution and product of each tower, and one for each other operator, by share of time.

    Keys: `tower`, `node`, `operator`, `weight` (its shape), `float_share` of the float32 tower's time in percent,
    `int8_over_float` (time of the node in the all-int8 tower over float32's), `error_alone` (1 - mean cosine when
    only this node is int8), `weight_sqnr_db` and `input_sqnr_db` (signal over quantization noise). What is unknown or
    does not apply is None.

    Raises:
        FormatError: as `folder.quantize_model`.
    """
    if model.manifest.quantization is not None:
        raise FormatError(f"{model.path} is already quantized; --explain takes a float32 folder")
    steering, _ = read_sides(model, calibration=calibration, measuring=measuring, texts=texts, progress=progress)
    rows: list[Row] = []
    if model.manifest.text is not None and model.manifest.can_read:
        rows += _explain("text", model, model.manifest.text.file, steering.texts, steering, target, memory, progress)
    if model.manifest.image is not None:
        rows += _explain(
            "image", model, model.manifest.image.file, steering.pictures, steering, target, memory, progress
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text in columns."""
    header = ["tower", "% of time", "int8/float", "error alone", "weight dB", "input dB", "operator", "weight", "node"]
    keys = ["tower", "float_share", "int8_over_float", "error_alone", "weight_sqnr_db", "input_sqnr_db",
            "operator", "weight", "node"]  # fmt: skip
    formats = {"float_share": "{:.1f}", "int8_over_float": "{:.2f}", "error_alone": "{:.6f}",
               "weight_sqnr_db": "{:.1f}", "input_sqnr_db": "{:.1f}"}  # fmt: skip
    cells = [["-" if row[key] is None else formats.get(key, "{}").format(row[key]) for key in keys] for row in rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _explain(
    kind: Literal["text", "image"],
    model: Model,
    file: str,
    feeds: Sequence[Feed],
    steering: Side,
    target: Target,
    memory: Path,
    progress: Callable[[str], None],
) -> list[Row]:
    tower = Tower(kind, onnx.load(str(model.file(file))), feeds, target)
    plan = next(plan for plan in reversed(tower.plans()) if plan.method == "static" and plan.calibration == "minmax")
    trials = Trials(tower, steering.steering(kind), memory=memory, target=target)
    errors = _errors(tower, trials, plan, progress)
    before = node_times(tower.model, feeds[:_PROFILED])
    after = node_times(tower.build(plan), feeds[:_PROFILED]) if target.timed_here else {}
    noise = _noise(tower, plan, feeds[:_PROFILED])
    float_times, int8_times = by_weighted_node(tower.prepared, before), by_weighted_node(tower.prepared, after)
    total = sum(time for _, time in before.values())
    known = constants(tower.prepared)
    rows: list[Row] = []
    for node in weighted_nodes(tower.prepared):
        name, spent = node.name, float_times.get(node.name)
        weight_noise, input_noise = noise.get(name, (None, None))
        rows.append({
            "tower": kind, "node": name, "operator": node.op_type,
            "weight": "x".join(map(str, known[node.input[1]].dims)),
            "float_share": None if spent is None else 100 * spent / total,
            "int8_over_float": int8_times[name] / spent if spent and name in int8_times else None,
            "error_alone": errors[name], "weight_sqnr_db": weight_noise, "input_sqnr_db": input_noise,
        })  # fmt: skip
    rows += _others(kind, before, _timed_names(tower, before), total)
    return sorted(rows, key=lambda row: -float(row["float_share"] or 0))


def _errors(tower: Tower, trials: Trials, plan: Plan, progress: Callable[[str], None]) -> dict[str, float]:
    start, errors = time.monotonic(), {}
    for number, node in enumerate(tower.nodes, start=1):
        errors[node] = trials.error_alone(plan, node)
        if number % 10 == 0:
            left = (time.monotonic() - start) / number * (len(tower.nodes) - number)
            progress(f"{tower.kind}: error of each node alone, {number} of {len(tower.nodes)}, {left:.0f} s left")
    return errors


def _noise(tower: Tower, plan: Plan, feeds: Sequence[Feed]) -> dict[str, tuple[float | None, float | None]]:
    """Return weight and input SQNR in dB by node of the all-int8 graph."""
    from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio as ratio

    smoothed, int8 = tower.calibrated(plan).model, tower.quantize(plan)
    makers = {name: node for node in int8.graph.node for name in node.output}
    weights, known = constants(smoothed), constants(int8)
    float_weights = {node.name: numpy_helper.to_array(weights[node.input[1]]) for node in weighted_nodes(smoothed)}
    inputs: dict[str, tuple[str, str]] = {}  # of each node: the value before and after rounding
    found: dict[str, tuple[float | None, float | None]] = {}
    for node in int8.graph.node:
        if node.name not in float_weights:
            continue
        rounded, weight = makers.get(node.input[0]), makers.get(node.input[1])
        rounder = makers.get(rounded.input[0]) if rounded is not None and len(rounded.input) else None
        if rounder is not None and rounder.op_type == "QuantizeLinear":
            inputs[node.name] = (rounder.input[0], node.input[0])
        if weight is not None and weight.op_type == "DequantizeLinear":
            codes, scale = (numpy_helper.to_array(known[name]) for name in weight.input[:2])
            axis = 0 if node.op_type == "Conv" else codes.ndim - 1
            shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
            decoded = codes.astype(np.float32) * scale.reshape(shape)
            found[node.name] = (float(ratio(float_weights[node.name], decoded)), None)
    names = sorted({name for pair in inputs.values() for name in pair})
    session = open_session(expose(int8, [name for name in names if name in makers]))
    values = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    read = {node.name: node.input[0] for node in weighted_nodes(smoothed)}
    for node_name, (before, after) in inputs.items():
        exact, rounded_values = ([value[name].ravel() for value in values] for name in (before, after))
        if read[node_name] != before:  # a clamp lay between: what it cuts is no noise
            exact = [np.clip(one, *_range(rounded_values)) for one in exact]
        noise = ratio(exact, rounded_values)
        found[node_name] = (found.get(node_name, (None, None))[0], float(noise))
    return found


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    return float(min(value.min() for value in values)), float(max(value.max() for value in values))


def _timed_names(tower: Tower, times: Mapping[str, tuple[str, float]]) -> set[str]:
    """Return the names under which the profile knows the nodes that have a weight."""
    return {name for name in times if by_weighted_node(tower.prepared, {name: times[name]})}


def _others(kind: str, times: Mapping[str, tuple[str, float]], weighted: Collection[str], total: float) -> list[Row]:
    """Return a row for each operator with the share of all its nodes that have no row of their own."""
    spent: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for name, (operator, microseconds) in times.items():
        if name not in weighted:
            spent[operator] += microseconds
            counts[operator] += 1
    rows: list[Row] = []
    for operator in sorted(spent):
        rows.append({
            "tower": kind, "node": f"{counts[operator]} nodes", "operator": operator, "weight": None,
            "float_share": 100 * spent[operator] / total, "int8_over_float": None, "error_alone": None,
            "weight_sqnr_db": None, "input_sqnr_db": None,
        })  # fmt: skip
    return rows
