from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pocketlens.errors import Refused
from pocketlens_export.clip import Clip
from pocketlens_export.graph import check_graph, write_image_graph, write_text_graph
from pocketlens_export.towers import SeeingTower, image_tower, text_tower
from tests.export.conftest import sample_pixels


def small_model() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1])
    weight = numpy_helper.from_array(np.ones(1, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["embedding"])], "g", [value], [out], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def signature(session: ort.InferenceSession) -> list[tuple[str, str, list[str | int]]]:
    return [(v.name, v.type, v.shape) for v in [*session.get_inputs(), *session.get_outputs()]]


@pytest.mark.parametrize(("name", "length"), [("tiny", "l"), ("bidirectional", 77), ("tiny-bert", "l")])
def test_graphs_have_the_contracts_names_types_and_sizes(exported: Path, name: str, length: str | int) -> None:
    text = ort.InferenceSession(exported / name / "text.onnx", providers=["CPUExecutionProvider"])
    image = ort.InferenceSession(exported / name / "image.onnx", providers=["CPUExecutionProvider"])
    assert signature(text) == [
        ("input_ids", "tensor(int64)", ["n", length]),
        ("pseudo_tokens", "tensor(float)", ["n", "p", 32]),
        ("embedding", "tensor(float)", ["n", 16]),
    ]
    assert signature(image) == [
        ("pixels", "tensor(uint8)", ["n", 32, 32, 3]),
        ("embedding", "tensor(float)", ["n", 16]),
    ]


@pytest.mark.parametrize("tower", ["text", "image"])
def test_graphs_are_self_contained_of_opset_20_and_do_not_say_where_they_were_made(exported: Path, tower: str) -> None:
    path = exported / "tiny" / f"{tower}.onnx"
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {(entry.domain, entry.version) for entry in model.opset_import} <= {("", 20)}
    assert not model.functions
    content = path.read_bytes()
    for word in (b"site-packages", b"pocketlens_export", b".py", b"/root", b"/home"):
        assert word not in content


def test_the_same_model_gives_the_same_bytes(clip: Clip, exported: Path, tmp_path: Path) -> None:
    text, image = text_tower(clip), image_tower(clip)
    write_text_graph(text, tmp_path / "text.onnx", length=77, dynamic_length=True, token_dim=32)
    write_image_graph(image, tmp_path / "image.onnx", side=32)
    for name in ("text.onnx", "image.onnx"):
        assert (tmp_path / name).read_bytes() == (exported / "tiny" / name).read_bytes()


def test_a_seeing_tower_has_two_outputs_and_the_embedding_of_one(fastvit: Clip, tmp_path: Path) -> None:
    tower, pixels = image_tower(fastvit), sample_pixels(fastvit.architecture, 3)
    write_image_graph(tower, tmp_path / "plain.onnx", side=64)
    write_image_graph(SeeingTower(tower), tmp_path / "seeing.onnx", side=64, features=True)
    plain, seeing = (
        ort.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("plain", "seeing")
    )
    assert signature(seeing) == [
        ("pixels", "tensor(uint8)", ["n", 64, 64, 3]),
        ("embedding", "tensor(float)", ["n", 16]),
        ("features", "tensor(float)", ["n", 768, 2, 2]),
    ]
    found = [session.run(["embedding"], {"pixels": pixels})[0] for session in (plain, seeing)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_exporting_prints_nothing(clip: Clip, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_image_graph(image_tower(clip), tmp_path / "image.onnx", side=32)
    assert capfd.readouterr() == ("", "")


def test_a_small_graph_passes() -> None:
    check_graph(small_model(), Path("x.onnx"))


@pytest.mark.parametrize("domain", ["ai.onnx.contrib", "com.example"])
def test_an_operator_of_a_foreign_domain_is_refused(domain: str) -> None:
    model = small_model()
    model.graph.node[0].domain = domain
    model.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(Refused, match=f"x.onnx: operators of {domain}, expected only"):
        check_graph(model, Path("x.onnx"))


def test_a_foreign_operator_in_a_branch_is_found() -> None:
    branch = small_model().graph
    branch.node[0].domain = "com.example"
    model = small_model()
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(Refused, match=r"operators of com\.example"):
        check_graph(model, Path("x.onnx"))


def test_a_graph_with_functions_is_refused() -> None:
    model = small_model()
    function = helper.make_function(
        "", "Hidden", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], model.opset_import
    )
    model.functions.append(function)
    with pytest.raises(Refused, match="Hidden"):
        check_graph(model, Path("x.onnx"))


def test_external_data_is_refused(tmp_path: Path) -> None:
    model = small_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(Refused, match=r"tensor 'w' lies outside the file"):
        check_graph(model, Path("x.onnx"))


def test_external_data_in_a_constant_is_refused() -> None:
    model = small_model()
    value = numpy_helper.from_array(np.ones(1, dtype=np.float32), "hidden")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=value))
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(Refused, match=r"tensor 'hidden' lies outside the file"):
        check_graph(model, Path("x.onnx"))


def test_an_invalid_graph_is_refused() -> None:
    model = small_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(Refused, match=r"x\.onnx is not a valid ONNX graph: .*NoSuchOperator"):
        check_graph(model, Path("x.onnx"))


def test_a_tower_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    class Branching(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float() if float(pixels.float().sum()) > 1 else pixels.float() * 2

    with pytest.raises(Refused, match="cannot be traced") as caught:
        write_image_graph(Branching(), tmp_path / "image.onnx", side=8)
    assert "\n" not in str(caught.value)
