from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pocketlens._types import Float32s, Int64s
from pocketlens.errors import Refused
from pocketlens_export import parity
from pocketlens_export.clip import Clip
from pocketlens_export.graph import write_image_graph
from pocketlens_export.parity import Agreement
from pocketlens_export.samples import GOLDEN_TEXTS, PROMPTS
from pocketlens_export.tokenizer import text_rules
from pocketlens_export.towers import ClipTextTower, SeeingTower, image_tower, text_tower, trained_features
from tests.export.conftest import Load, sample_pixels


def ids_of(model: Clip) -> Int64s:
    reference = text_rules(model, text_tower(model), None).reference
    assert reference is not None
    return reference([*GOLDEN_TEXTS, *PROMPTS])


def change_token(source: Path, target: Path, token: int) -> Path:
    """Copy a text graph with the embedding of one token changed a little."""
    model = onnx.load(source)
    (table,) = [tensor for tensor in model.graph.initializer if tensor.dims[:1] == [49408]]
    values = numpy_helper.to_array(table).copy()
    values[token, ::2] *= 1.05
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(model, target)
    return target


def test_agreement_by_hand() -> None:
    a = np.array([[1, 0], [0, 1]], dtype=np.float32)
    b = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    found = parity.agreement(a, b)
    assert found.min_cosine == pytest.approx(0.8)
    assert found.max_abs == pytest.approx(0.6)
    assert parity.worst([Agreement(0.9, 0.1), Agreement(1.0, 0.3)]) == Agreement(0.9, 0.3)


@pytest.mark.parametrize(
    "measured",
    [Agreement(0.99998, 0.0), Agreement(1.0, 1.1e-4), Agreement(float("nan"), 0.0), Agreement(1.0, float("nan"))],
)
def test_the_gate_refuses(measured: Agreement) -> None:
    with pytest.raises(Refused, match=r"it: least cosine .*; nothing was written"):
        parity.gate("it", measured)


def test_the_gate_passes_the_bar() -> None:
    assert parity.gate("it", Agreement(0.99999, 1e-4)) == Agreement(0.99999, 1e-4)


def test_an_image_graph_is_compared_at_every_batch(clip: Clip, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = sample_pixels(clip.architecture, 10)
    expected = clip.encode_pixels(pixels)
    seen = []
    run = parity._run

    def spy(session: Any, feeds: dict[str, Any]) -> Float32s:
        seen.append(len(feeds["pixels"]))
        return run(session, feeds)

    monkeypatch.setattr(parity, "_run", spy)
    parity.check_image(exported / "tiny" / "image.onnx", pixels, expected)
    assert seen == [1, 2, 7, 10]
    for row in range(10):
        wrong = expected.copy()
        wrong[row] = np.roll(wrong[row], 1)
        with pytest.raises(Refused, match="image graph against torch"):
            parity.check_image(exported / "tiny" / "image.onnx", pixels, wrong)


def test_features_are_compared_at_every_batch(fastvit: Clip, tmp_path: Path) -> None:
    pixels, path = sample_pixels(fastvit.architecture, 10), tmp_path / "image.onnx"
    expected = trained_features(fastvit, pixels)
    write_image_graph(SeeingTower(image_tower(fastvit)), path, side=64, features=True)
    measured = parity.check_features(path, pixels, expected)
    assert measured.min_cosine > 0.999999 and measured.max_abs < 1e-5
    parity.check_image(path, pixels, fastvit.encode_pixels(pixels))
    for row in range(10):
        wrong = expected.copy()
        wrong[row] = np.roll(wrong[row], 1, axis=0)
        with pytest.raises(Refused, match="features of the image graph against torch: least cosine"):
            parity.check_features(path, pixels, wrong)
    with pytest.raises(Refused, match=r"image\.onnx gives features of \(1, 768, 2, 2\), expected \(1, 768, 4\)"):
        parity.check_features(path, pixels, expected.reshape(10, 768, 4))


def test_a_reparameterization_that_changes_the_tower_is_refused(clip: Clip) -> None:
    pixels = sample_pixels(clip.architecture, 2)
    expected = clip.encode_pixels(pixels)
    tower = image_tower(clip)
    parity.check_reparameterization(tower, pixels, expected)
    tower.shift = tower.shift + 0.05
    with pytest.raises(Refused, match="re-parameterized image tower"):
        parity.check_reparameterization(tower, pixels, expected)


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
def test_text_graphs_agree_with_open_clip(load: Load, exported: Path, name: str) -> None:
    model = load(name)
    found = parity.check_text(exported / name / "text.onnx", model, text_tower(model), ids_of(model), pad_id=0)
    assert found.min_cosine >= 0.999999
    assert found.max_abs <= 5e-6


def test_a_text_graph_with_one_token_changed_is_refused(clip: Clip, exported: Path, tmp_path: Path) -> None:
    path = change_token(exported / "tiny" / "text.onnx", tmp_path / "text.onnx", 49406)
    with pytest.raises(Refused, match="text graph against torch"):
        parity.check_text(path, clip, text_tower(clip), ids_of(clip), pad_id=0)


def test_a_text_graph_that_ignores_pseudo_tokens_is_refused(
    clip: Clip, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parity._run

    def forgetful(session: Any, feeds: dict[str, Any]) -> Float32s:
        return run(session, {**feeds, "pseudo_tokens": np.zeros_like(feeds["pseudo_tokens"])})

    monkeypatch.setattr(parity, "_run", forgetful)
    with pytest.raises(Refused, match="text graph against torch"):
        parity.check_text(exported / "tiny" / "text.onnx", clip, text_tower(clip), ids_of(clip), pad_id=0)


def test_foreign_pseudo_tokens_alone_can_fail(clip: Clip, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comparison, with rows that no token has, is not passed by luck of the first."""
    monkeypatch.setattr(parity, "_encode_overwritten", lambda clip, tower, ids, places, rows: clip.encode_ids(ids))
    with pytest.raises(Refused, match="text graph against torch"):
        parity.check_text(exported / "tiny" / "text.onnx", clip, text_tower(clip), ids_of(clip), pad_id=0)


def test_texts_too_short_for_pseudo_tokens_are_not_silently_skipped(clip: Clip, exported: Path) -> None:
    ids = ids_of(clip)
    ids[:, 4:] = 0
    ids[:, 3] = 49407
    with pytest.raises(Refused, match="fewer than two sample texts have 7 tokens"):
        parity.check_text(exported / "tiny" / "text.onnx", clip, text_tower(clip), ids, pad_id=0)


@pytest.mark.parametrize(("name", "exact"), [("tiny", True), ("tiny-bert", True), ("bidirectional", False)])
def test_trimming_is_measured(load: Load, name: str, exact: bool) -> None:
    model = load(name)
    found = parity.check_trimming(text_tower(model), ids_of(model), pad_id=0)
    assert (found <= 1e-6) if exact else (found > 1e-2)


def test_a_wrong_claim_about_trimming_is_refused(load: Load) -> None:
    model = load("bidirectional")
    tower = ClipTextTower(model.model.text).eval()
    tower.trim = True
    with pytest.raises(Refused, match=r"changes its embedding by .*: this text tower sees padding"):
        parity.check_trimming(tower, ids_of(model), pad_id=0)


def test_a_file_that_onnxruntime_cannot_load_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"no graph")
    with pytest.raises(Refused, match=r"cannot load the exported text\.onnx"):
        parity.open_graph(tmp_path / "text.onnx")


def test_the_reference_is_left_as_it_was(clip: Clip, exported: Path) -> None:
    ids = ids_of(clip)
    before = clip.encode_ids(ids)
    parity.check_text(exported / "tiny" / "text.onnx", clip, text_tower(clip), ids, pad_id=0)
    np.testing.assert_array_equal(clip.encode_ids(ids), before)
    assert not clip.model.text.token_embedding._forward_hooks
    assert torch.is_grad_enabled()
