"""The networks in torch, and what is written of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from pocketlens._types import Float32s
from pocketlens_export.fit.network_graph import run_network, write_network
from pocketlens_export.fit.networks import Network

Activation = Literal["gelu", "relu"]


def network(activation: Activation = "gelu", *, shift: Float32s | None = None, tokens: int = 2) -> Network:
    torch.manual_seed(0)
    return Network(12, 10, hidden=32, tokens=tokens, activation=activation, dropout=0.5, shift=shift).eval()


def units(count: int = 5) -> Float32s:
    values = np.random.default_rng(0).standard_normal((count, 12)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("shifted", [False, True])
def test_forward_in_numpy(activation: Activation, shifted: bool) -> None:
    shift = np.linspace(-0.2, 0.3, 12, dtype=np.float32) if shifted else None
    made = network(activation, shift=shift)
    value = units().astype(np.float64)
    if shift is not None:
        value = value - shift
        value /= np.linalg.norm(value, axis=1, keepdims=True)
    for number, layer in enumerate(made.linears):
        value = value @ layer.weight.detach().numpy().T.astype(np.float64) + layer.bias.detach().numpy()
        if number < 2:
            value = (
                value * (1 + np.vectorize(math.erf)(value / np.sqrt(2))) / 2
                if activation == "gelu"
                else np.maximum(value, 0)
            )
    with torch.no_grad():
        found = made(torch.from_numpy(units())).numpy()
    np.testing.assert_allclose(found, value.reshape(5, 2, 10), atol=1e-6)


def test_dropout_is_for_training_alone() -> None:
    made = network()
    given = torch.from_numpy(units())
    assert torch.equal(made(given), made(given))
    made.train()
    assert not torch.equal(made(given), made(given))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("tokens", [1, 3])
def test_written_network_by_onnxruntime(tmp_path: Path, activation: Activation, shifted: bool, tokens: int) -> None:
    shift = np.linspace(-0.2, 0.3, 12, dtype=np.float32) if shifted else None
    made = network(activation, shift=shift, tokens=tokens)
    write_network(made, tmp_path / "n.onnx")
    with torch.no_grad():
        expected = made(torch.from_numpy(units())).numpy()
    found = run_network(tmp_path / "n.onnx", units())
    assert found.shape == (5, tokens, 10)
    cosines = (found * expected).sum(axis=-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.999


def test_weights_lie_in_the_file_as_int8_with_a_scale_for_every_output(tmp_path: Path) -> None:
    made = network()
    write_network(made, tmp_path / "n.onnx")
    model = onnx.load(str(tmp_path / "n.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = made.linears[1].weight.detach().numpy().T
    codes, scales = tensors["layer1.weight.int8"], tensors["layer1.weight.scale"]
    assert codes.dtype == np.int8 and scales.shape == (32,)
    assert (np.abs(codes).max(axis=0) == 127).all()
    assert (np.abs(codes * scales - weight) <= scales / 2 * 1.0001).all()
    assert [node.op_type for node in model.graph.node].count("DequantizeLinear") == 3


def test_a_column_of_zeros_is_stored(tmp_path: Path) -> None:
    made = network()
    with torch.no_grad():
        made.linears[2].weight[0] = 0
    write_network(made, tmp_path / "n.onnx")
    found = run_network(tmp_path / "n.onnx", units())
    np.testing.assert_allclose(found[:, 0, 0], float(made.linears[2].bias[0].detach()), atol=1e-4)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_network(network(), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
