from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort
import pytest

import pocketlens
from pocketlens import cli
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.inspect import verify
from pocketlens.model import Model
from pocketlens_export.gallery.build import build_bundle
from pocketlens_quantize.queries import sample_queries
from pocketlens_quantize.target import find_target, processor_name
from tests.quantize import towers
from tests.quantize.towers import cosine

GATE = "cosine=0.9,agreement=0.5,recall=100"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trials are remembered; shared, so that one search suffices."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cache: Path) -> Run:
    """Call the command in this process, as the installed script does."""
    monkeypatch.setenv("POCKETLENS_CACHE", str(cache))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pocketlens", "quantize", *map(str, arguments)])
        code: Any = 0
        before = signal.getsignal(signal.SIGTERM)
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 model folder; read-only."""
    return towers.write_model(tmp_path_factory.mktemp("models") / "towers")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return towers.write_pictures(tmp_path_factory.mktemp("pictures"), 130)


def failed(result: Result, message: str, *, code: int = 1) -> None:
    """Assert the exit code and that the last line of stderr is the one message."""
    assert (result.code, result.out) == (code, ""), result
    lines = result.err.splitlines()
    assert lines[-1].startswith(f"pocketlens: {message}"), result.err
    assert sum(line.startswith("pocketlens:") for line in lines) == 1 and "Traceback" not in result.err


def test_a_run_prints_its_proof_and_makes_a_folder_that_opens(
    run: Run, source: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "smaller"
    result = run(source, "--out", out, "--target", "arm64", "--calibration", pictures, "--gate", GATE)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["text", "image"]
    assert any(line.startswith("cosine to float32: mean") for line in lines)
    assert not any("ms" in line for line in lines)
    assert lines[-2] == "latency is unmeasured: this machine cannot time arm64"
    assert lines[-1] == f"{out}: for arm64; every plan that was tried is in {out / 'quantization.md'}"
    assert "static int8" in result.err and "measuring on inputs that were kept aside" in result.err
    verify(out)
    bundle = tmp_path / "bundle"
    model = Model.open(out)
    build_bundle(pictures, bundle, model=model, query_model=model)
    with pocketlens.open(bundle) as lens:
        hits = lens.search(image=pictures / "007.png", k=3)
    assert hits[0].id == "007.png"


def test_json_is_all_that_stdout_holds(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    arguments = (source, "--out", out, "--target", "arm64", "--calibration", pictures, "--gate", GATE, "--json")
    result = run(*arguments)
    told = json.loads(result.out)
    manifest = json.loads((out / "model.json").read_text())
    assert told["name"] == "towers"
    assert told["quantization"] == manifest["quantization"] and told["quantization"]["timed_on"] is None
    assert told["quality"] == manifest["quality"]
    assert told["size_bytes"] == {path.name: path.stat().st_size for path in out.iterdir() if path.name != "model.json"}


def test_ort_files_for_this_machine_open_in_the_runtime(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    result = run(source, "--out", out, "--calibration", pictures, "--gate", GATE, "--ort", "--json")
    if "latency is" in result.err:  # a tower this small is faster in one run and slower in the next: then it is refused
        assert result.code == 1 and not out.exists()
        return
    assert result.code == 0, result.err
    assert {"text.ort", "image.ort", "required_operators.config"} < {path.name for path in out.iterdir()}
    assert not list(out.glob("*.onnx"))
    told = json.loads(result.out)
    for tower in ("text", "image"):
        assert told["quality"][f"{tower}_bytes"] == (out / f"{tower}.ort").stat().st_size
        assert told["quality"][f"{tower}_float_bytes"] == (source / f"{tower}.onnx").stat().st_size
    timed_on = f"{processor_name()} ({find_target('this').name}), 1 thread, onnxruntime {ort.__version__}"
    assert told["quantization"]["timed_on"] == timed_on and told["quality"]["text_latency_ratio"] > 0
    assert told["quality"]["image_latency_ms_p50"] <= told["quality"]["image_latency_ms_p95"]
    verify(out)
    before, after = Model.open(source), Model.open(out)
    queries, pixels = sample_queries(12, seed=5), towers.pictures(12, seed=33)
    assert cosine(TextEncoder(after).encode(queries), TextEncoder(before).encode(queries)).mean() > 0.9
    near = cosine(ImageEncoder(after).encode_pixels(pixels), ImageEncoder(before).encode_pixels(pixels))
    assert near.mean() > 0.9
    listed = (out / "required_operators.config").read_text().splitlines()
    assert listed[0] == f"# Operators of image.ort, text.ort, onnxruntime {ort.__version__}"
    assert any("Softmax" in line or "MultiHeadAttention" in line for line in listed[1:])
    assert str(tmp_path) not in "\n".join(listed)


def test_explaining_writes_nothing_and_lists_every_node(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    result = run(source, "--explain", "--target", "arm64", "--calibration", pictures, "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)
    names = {tower: {row["node"] for row in rows if row["tower"] == tower} for tower in ("text", "image")}
    assert {"wide.Conv", "narrow.Conv", "stem.sums.Conv", "head.Gemm"} <= names["image"]
    assert {"layer0.up.product.MatMul", "layer1.down.product.MatMul"} <= names["text"]
    assert all(row["error_alone"] >= -1e-6 for row in rows if row["error_alone"] is not None)
    total = sum(row["float_share"] or 0 for row in rows)
    assert 180 < total < 200.01  # a hundred for each tower, less what onnxruntime adds on its own
    assert list(tmp_path.iterdir()) == []
    lines = run(source, "--explain", "--target", "arm64", "--calibration", pictures).out.splitlines()
    assert lines[0].split()[0] == "tower" and len(lines) == len(rows) + 1


def test_a_missed_gate_is_one_line_and_writes_nothing(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    result = run(source, "--out", tmp_path / "x", "--target", "arm64", "--calibration", pictures, "--gate", "cosine=1")
    failed(result, f"{source}: nothing reaches the ")  # text or image: float16 may be 1 but for rounding
    assert "tower's gate. The nearest, float16 storage: cosine 1.0000" in result.err.splitlines()[-1]
    assert "mean cosine 1.0000 misses 1 by 0.0000" in result.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --out FOLDER or --explain"),
        (["--out", "x", "--explain"], "give either --out FOLDER or --explain"),
        (["--explain", "--gate", "cosine=0.9"], "--gate and --ort are of no use with --explain"),
        (["--explain", "--ort"], "--gate and --ort are of no use with --explain"),
        (["--out", "x", "--target", "sparc"], "Invalid value for '--target': 'sparc' is not one of"),
        (["--out", "x", "--minutes", "0"], "Invalid value for '--minutes': 0.0 is not in the range"),
    ],
)
def test_a_wrong_call_is_exit_code_2(run: Run, source: Path, arguments: list[str], message: str) -> None:
    failed(run(source, *arguments), message, code=2)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("speed=1", "--gate speed=1: 'speed' is twice there or unknown, expected cosine, agreement or recall"),
        ("cosine=1.5", "--gate cosine=1.5: cosine is '1.5', expected a number from 0 to 1"),
        ("recall=nan", "--gate recall=nan: recall is 'nan', expected a number from 0 to 100"),
    ],
)
def test_a_wrong_gate_is_named(run: Run, source: Path, tmp_path: Path, gate: str, message: str) -> None:
    result = run(source, "--out", tmp_path / "x", "--gate", gate)
    assert result.code in (1, 2) and result.out == ""
    assert result.err.startswith(f"pocketlens: {message}") and result.err.count("\n") == 1


def test_bad_input_is_one_line(run: Run, source: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    failed(run(tmp_path / "absent", "--out", out), f"{tmp_path / 'absent'}")
    failed(run(source, "--out", out), f"{source}: no calibration pictures")
    failed(run(source, "--out", out, "--calibration", tmp_path / "none"), f"{tmp_path / 'none'} is not a folder")
    few = towers.write_pictures(tmp_path / "few", 5)
    failed(run(source, "--out", out, "--calibration", few), f"{few}: found 5 different readable pictures")
    shared = run(source, "--out", out, "--calibration", pictures, "--measuring", pictures)
    failed(shared, "calibration and measuring pictures must be disjoint: found 130")
    texts = tmp_path / "texts.txt"
    texts.write_text("one query\n")
    result = run(source, "--out", out, "--calibration", pictures, "--texts", texts)
    failed(result, f"{texts}: found 1 different texts, expected at least 128")
    assert not out.exists()
