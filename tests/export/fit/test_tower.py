from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pocketlens.errors import FormatError, MissingPart, Refused
from pocketlens.model import Model, find_model
from pocketlens_export.clip import Clip
from pocketlens_export.fit.interpreter import Interpreter
from pocketlens_export.fit.tower import MIN_COSINE, TextTower
from pocketlens_export.towers import text_tower
from tests.folders import sign
from tests.quantize import towers

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
def test_exported_towers_are_proven(exported: Path, name: str) -> None:
    assert TextTower(Model.open(exported / name), device=CPU).prove() >= MIN_COSINE


def test_tower_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    tower = TextTower(Model.open(towers.write_model(tmp_path / "model")), device=CPU)
    tower._graph = Interpreter(towers.text_tower(outlier=3, seed=1), device=CPU)
    with pytest.raises(Refused, match=r"has cosine -?0\.\d+ to onnxruntime's, expected at least 0\.99999"):
        tower.prove()


def test_tower_that_takes_pseudo_tokens_otherwise_is_refused(tmp_path: Path) -> None:
    tower = TextTower(Model.open(towers.write_model(tmp_path / "model")), device=CPU)
    graph = towers.text_tower(outlier=3)
    (node,) = [node for node in graph.graph.node if "pseudo_tokens" in node.input]
    node.op_type = "ReduceMean"  # of no pseudo-tokens it would be no number; with them it is not their sum
    tower._graph = Interpreter(graph, device=CPU)
    with pytest.raises(Refused):
        tower.prove()


def test_integer_towers_are_refused_with_advice() -> None:
    with pytest.raises(FormatError, match=r"computes in integers \(.*--into"):
        TextTower(Model.open(find_model("lens-base")), device=CPU)


def test_model_without_text_tower(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(MissingPart, match="has no text tower to fit"):
        TextTower(Model.open(bundle / "image"), device=CPU)


def test_file_that_is_no_graph(tmp_path: Path, colours: Path) -> None:
    folder = towers.write_model(tmp_path / "model")
    (folder / "text.onnx").write_bytes(b"\xff\xff no graph")
    sign(folder / "model.json")
    with pytest.raises(FormatError, match="is no ONNX graph"):
        TextTower(Model.open(folder), device=CPU)


def test_operator_that_cannot_be_trained_through_is_named_with_its_file(tmp_path: Path) -> None:
    folder = towers.write_model(tmp_path / "model")
    graph = onnx.load(str(folder / "text.onnx"))
    next(node for node in graph.graph.node if node.op_type == "Gelu").op_type = "Mish"
    onnx.save(graph, str(folder / "text.onnx"))
    sign(folder / "model.json")
    with pytest.raises(FormatError, match=r"text\.onnx: the graph holds the operator Mish"):
        TextTower(Model.open(folder), device=CPU)


def test_gradients_reach_the_pseudo_tokens_alone(exported: Path) -> None:
    tower = TextTower(Model.open(exported / "tiny-bert"), device=CPU)
    tokens = torch.randn(2, 1, tower.spec.token_dim, requires_grad=True)
    ids = torch.tensor([[2, 7, -1, 8, 3], [2, -1, 7, 3, 0]])
    tower(ids, tokens).sum().backward()  # type: ignore[no-untyped-call]
    assert tokens.grad is not None and float(tokens.grad.abs().min(dim=-1).values.max()) >= 0
    assert (tokens.grad.abs().sum(dim=-1) > 0).all()
    assert not any(value.requires_grad for value in tower._graph._constants.values())


def test_the_token_table_is_that_of_the_words(exported: Path, bert: Clip, clip: Clip) -> None:
    for name, module in (("tiny-bert", bert), ("tiny", clip)):
        tower = TextTower(Model.open(exported / name), device=CPU)
        expected = text_tower(module).embedding.weight.detach().numpy()
        np.testing.assert_array_equal(tower.token_table(), expected)
