from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pocketlens._types import Float32s
from pocketlens_export.fit.network_graph import run_network
from pocketlens_export.tokens.learner import Scale, TokenLearner, write_learner

CHANNELS, HEIGHT, WIDTH, TOKENS, TOKEN_DIM = 12, 3, 5, 4, 10


def learner(*, dropout: float = 0.0) -> TokenLearner:
    torch.manual_seed(0)
    scale = Scale(np.linspace(-1, 2, CHANNELS, dtype=np.float32), np.linspace(0.5, 3, CHANNELS, dtype=np.float32))
    made = TokenLearner(
        CHANNELS, TOKEN_DIM, tokens=TOKENS, hidden=16, norm=0.7, dropout=dropout, scale=scale
    ).eval()  # fmt: skip
    with torch.no_grad():
        made.norms.add_(torch.arange(TOKENS)[:, None] / 10)  # as training leaves them
        made.offsets.add_(torch.randn(TOKENS, 16))
    return made


def maps(count: int = 6) -> Float32s:
    return (3 * np.random.default_rng(0).standard_normal((count, CHANNELS, HEIGHT, WIDTH))).astype(np.float32)


def by_hand(made: TokenLearner, features: Float32s) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the tokens, a cell, a token and a picture at a time, in float64."""
    values = {name: value.double().numpy() for name, value in made.state_dict().items()}
    out = np.zeros((len(features), TOKENS, TOKEN_DIM))
    for n, picture in enumerate(features.astype(np.float64)):
        cells = [(picture[:, y, x] - values["mean"]) * values["factor"] for y in range(HEIGHT) for x in range(WIDTH)]
        for k in range(TOKENS):
            logits = np.array([cell @ values["attention.weight"][k] + values["attention.bias"][k] for cell in cells])
            shares = np.exp(logits) / np.exp(logits).sum()
            seen = sum(share * cell for share, cell in zip(shares, cells, strict=True))
            normed = (seen - seen.mean()) / math.sqrt(seen.var() + 1e-5)
            hidden = values["first.weight"] @ normed + values["offsets"][k]
            hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
            row = values["second.weight"] @ hidden + values["second.bias"]
            out[n, k] = values["norms"][k] * row / np.linalg.norm(row)
    return out


def test_forward_in_numpy() -> None:
    made = learner()
    with torch.no_grad():
        found = made(torch.from_numpy(maps())).numpy()
    np.testing.assert_allclose(found, by_hand(made, maps()), atol=2e-6)


def test_shares_add_up_to_one_over_the_cells_of_every_token() -> None:
    with torch.no_grad():
        tokens, shares = learner().look(torch.from_numpy(maps()))
    assert shares.shape == (6, HEIGHT * WIDTH, TOKENS) and tokens.shape == (6, TOKENS, TOKEN_DIM)
    np.testing.assert_allclose(shares.sum(dim=1).numpy(), 1, atol=1e-6)
    assert shares.std(dim=2).min() > 0  # the tokens look at different places


def test_tokens_begin_as_long_as_words() -> None:
    torch.manual_seed(0)
    scale = Scale(np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32))
    made = TokenLearner(CHANNELS, TOKEN_DIM, tokens=2, hidden=8, norm=0.38, dropout=0.0, scale=scale)
    with torch.no_grad():
        norms = made(torch.from_numpy(maps())).norm(dim=-1)
    np.testing.assert_allclose(norms.numpy(), 0.38, rtol=1e-5)


def test_dropout_is_for_training_alone() -> None:
    made = learner(dropout=0.5)
    given = torch.from_numpy(maps())
    assert torch.equal(made(given), made(given))
    made.train()
    assert not torch.equal(made(given), made(given))


def test_written_graph_by_onnxruntime(tmp_path: Path) -> None:
    made = learner()
    write_learner(made, tmp_path / "isa.onnx", height=HEIGHT, width=WIDTH)
    found, expected = run_network(tmp_path / "isa.onnx", maps()), by_hand(made, maps())
    assert found.shape == expected.shape
    cosines = (found * expected).sum(axis=-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(expected, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(run_network(tmp_path / "isa.onnx", maps()[2:3]), found[2:3], atol=1e-6)


def test_graph_as_the_contract_has_it_with_its_matrices_in_int8(tmp_path: Path) -> None:
    write_learner(learner(), tmp_path / "isa.onnx", height=HEIGHT, width=WIDTH)
    graph = onnx.load(str(tmp_path / "isa.onnx")).graph
    shape = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert (graph.input[0].name, shape) == ("features", ["n", CHANNELS, HEIGHT, WIDTH])
    assert [value.name for value in graph.output] == ["pseudo_tokens"]
    matrices = {tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert matrices == {(CHANNELS, TOKENS), (CHANNELS, 16), (16, TOKEN_DIM)}


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_map_that_is_the_same_everywhere_gives_numbers(tmp_path: Path, value: float) -> None:
    made = learner()
    write_learner(made, tmp_path / "isa.onnx", height=HEIGHT, width=WIDTH)
    flat = np.full((1, CHANNELS, HEIGHT, WIDTH), value, dtype=np.float32)
    assert np.isfinite(run_network(tmp_path / "isa.onnx", flat)).all()
    assert np.isfinite(made(torch.from_numpy(flat)).detach().numpy()).all()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_learner(learner(), tmp_path / name, height=HEIGHT, width=WIDTH)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
