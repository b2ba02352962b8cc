from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip.tokenizer
import pytest
import torch
from torch import nn

from pocketlens.errors import Refused
from pocketlens_export.clip import Clip, normalised
from pocketlens_export.samples import PROMPTS
from pocketlens_export.towers import (
    SeeingTower,
    features_shape,
    image_tower,
    slow_attention,
    splice,
    text_tower,
    trained_features,
)
from tests.export.conftest import Load, sample_pixels, timm_clip

NAMES = ["tiny", "bidirectional", "tiny-bert"]


def ids_of(model: Clip) -> torch.Tensor:
    folder = model.architecture.model_cfg["text_cfg"].get("hf_tokenizer_name")
    length = model.text_cfg.context_length
    if folder:
        found = open_clip.tokenizer.HFTokenizer(folder, context_length=length)(list(PROMPTS))
    else:
        found = open_clip.tokenizer.SimpleTokenizer(context_length=length)(list(PROMPTS))
    return torch.as_tensor(found)


def test_splice_by_hand() -> None:
    embedding = nn.Embedding(3, 2)
    embedding.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    pseudo = torch.tensor([[[10.0, 11.0], [20.0, 21.0]], [[30.0, 31.0], [40.0, 41.0]]])
    found = splice(embedding, torch.tensor([[-1, 2, -1], [1, -1, 0]]), pseudo)
    assert found[0].tolist() == [[10.0, 11.0], [2.0, 2.0], [20.0, 21.0]]
    assert found[1].tolist() == [[1.0, 1.0], [30.0, 31.0], [0.0, 0.0]]  # the second one is left over
    plain = splice(embedding, torch.tensor([[0, 2]]), torch.zeros((1, 0, 2)))
    assert plain.tolist() == [[[0.0, 0.0], [2.0, 2.0]]]


def test_more_placeholders_than_pseudo_tokens_give_zeros_not_another_rows_values() -> None:
    embedding = nn.Embedding(3, 2)
    found = splice(embedding, torch.tensor([[-1, -1]]), torch.ones((1, 1, 2)))
    assert found.tolist() == [[[1.0, 1.0], [0.0, 0.0]]]


@pytest.mark.parametrize("name", NAMES)
def test_without_pseudo_tokens_a_text_tower_is_open_clips_encode_text(load: Load, name: str) -> None:
    model = load(name)
    tower, ids = text_tower(model), ids_of(model)
    with torch.no_grad():
        found = tower(ids, torch.zeros((len(ids), 0, tower.embedding.embedding_dim)))
    np.testing.assert_allclose(found.numpy(), model.encode_ids(ids.numpy()), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokens_own_row_as_a_pseudo_token_is_the_plain_text(load: Load, name: str) -> None:
    model = load(name)
    tower, ids = text_tower(model), ids_of(model)[[0, 2, 3]]  # long enough
    with_places = ids.clone()
    with_places[:, 2] = with_places[:, 4] = -1
    rows = tower.embedding(ids[:, [2, 4]]).detach()
    with torch.no_grad():
        found, swapped = tower(with_places, rows), tower(with_places, rows.flip(1))
    np.testing.assert_allclose(found.numpy(), model.encode_ids(ids.numpy()), atol=1e-6)
    assert float((found - swapped).abs().max()) > 1e-3  # and the order of pseudo-tokens counts


@pytest.mark.parametrize(
    ("name", "text_cfg", "trim", "pooling"),
    [
        ("tiny", {}, True, "end"),
        ("tiny", {"pool_type": "eos", "eos_id": 49407}, True, "end"),
        ("tiny", {"pool_type": "first"}, True, "first"),
        ("tiny", {"pool_type": "last"}, False, "last"),
        ("bidirectional", {}, False, "end"),
        ("tiny-bert", {}, True, "mean"),
        ("tiny-bert", {"hf_pooler_type": "cls_last_hidden_state_pooler"}, True, "first"),
    ],
)
def test_what_the_configuration_says_of_trimming_and_pooling(
    load: Load, name: str, text_cfg: dict[str, Any], trim: bool, pooling: str
) -> None:
    tower = text_tower(load(name, **text_cfg))
    assert (tower.trim, tower.pooling) == (trim, pooling)


@pytest.mark.parametrize(
    ("name", "text_cfg"),
    [("tiny", {"embed_cls": True}), ("tiny", {"pool_type": "none"}), ("tiny-bert", {"hf_pooler_type": "max_pooler"})],
)
def test_a_text_tower_that_the_contract_cannot_express_is_refused(
    load: Load, name: str, text_cfg: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match="this text tower cannot be exported"):
        text_tower(load(name, **text_cfg))


def test_the_image_tower_is_open_clips_encode_image(clip: Clip) -> None:
    pixels = sample_pixels(clip.architecture, 3)
    with torch.no_grad():
        found = image_tower(clip)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, clip.encode_pixels(pixels), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_reparameterization_folds_branches_and_leaves_the_model_as_it_was(fastvit: Clip) -> None:
    before = {key: value.clone() for key, value in fastvit.model.visual.state_dict().items()}
    tower = image_tower(fastvit)
    assert len(list(tower.visual.modules())) < 0.8 * len(list(fastvit.model.visual.modules()))
    after = fastvit.model.visual.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("fastvit_t8", 64, (768, 2, 2)),
        ("tf_efficientnet_lite0", 64, (1280, 2, 2)),
        ("swin_tiny_patch4_window7_224", 224, (768, 7, 7)),  # lays its maps out with channels last
    ],
)
def test_features_are_the_trunks_last_map_and_the_embedding_is_the_towers_own(
    configs: Path, name: str, side: int, shape: tuple[int, int, int]
) -> None:
    clip = timm_clip(configs, name, side=side)
    tower = image_tower(clip)
    assert features_shape(tower, side) == shape
    pixels = torch.from_numpy(sample_pixels(clip.architecture, 2))
    trunk: Any = tower.visual.trunk
    with torch.no_grad():
        embedding, features = SeeingTower(tower)(pixels)
        assert torch.equal(embedding, tower(pixels))
        maps = trunk.forward_features(tower.normalised(pixels))
    assert tuple(features.shape) == (2, *shape)
    planes = maps.permute(0, 3, 1, 2) if name.startswith("swin") else maps
    assert torch.equal(features, planes)


def test_trained_features_are_those_of_the_tower_before_reparameterization(fastvit: Clip) -> None:
    pixels = sample_pixels(fastvit.architecture, 10)
    with torch.no_grad():
        expected = fastvit.model.visual.trunk.forward_features(
            normalised(torch.from_numpy(pixels), fastvit.preprocessing)
        ).numpy()
        folded = SeeingTower(image_tower(fastvit))(torch.from_numpy(pixels))[1].numpy()
    found = trained_features(fastvit, pixels)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(found, folded, atol=1e-3, rtol=1e-3)


def test_a_tower_without_a_map_has_no_features(clip: Clip, configs: Path) -> None:
    assert features_shape(image_tower(clip), 32) is None  # open_clip's own transformer
    vit = timm_clip(configs, "vit_tiny_patch16_224", side=224)
    assert features_shape(image_tower(vit), 224) is None  # a class token among the patches


def test_a_trunk_that_pools_something_else_has_no_features(fastvit: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = image_tower(fastvit)
    trunk: Any = tower.visual.trunk
    plain = trunk.forward_features
    monkeypatch.setattr(trunk, "forward", lambda x: trunk.forward_head(2 * plain(x)))
    assert features_shape(tower, 64) is None


def test_the_fast_path_is_off_inside_and_as_it_was_after() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with slow_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == before
