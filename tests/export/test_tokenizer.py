from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.tokenizer
import pytest
import tokenizers

from pocketlens.errors import FormatError, Refused
from pocketlens.model import Model, TextSpec
from pocketlens.text import Tokenizer
from pocketlens_export import tokenizer as module
from pocketlens_export.architecture import registered_architecture
from pocketlens_export.clip import Clip
from pocketlens_export.samples import GOLDEN_TEXTS, PROMPTS
from pocketlens_export.tokenizer import made_up_ids, prove_tokenizer, text_rules
from pocketlens_export.towers import TextTower, text_tower
from tests.export.conftest import Load

TEXTS = [*GOLDEN_TEXTS, *PROMPTS, "the dogs and a cat!", "Red  BOATS", "ö", "&amp;", "x" * 200, "a " * 21, "a " * 22]


def spec_of(folder: Path) -> TextSpec:
    spec = Model.open(folder).manifest.text
    assert spec is not None
    return spec


def renamed(clip: Clip, name: str, **text_cfg: Any) -> Clip:
    """Return the same model as if it were another architecture with another tokenizer."""
    changed = {**clip.architecture.model_cfg["text_cfg"], **text_cfg}
    architecture = dataclasses.replace(
        clip.architecture, name=name, model_cfg={**clip.architecture.model_cfg, "text_cfg": changed}
    )
    return dataclasses.replace(clip, architecture=architecture, text_cfg=open_clip.CLIPTextCfg(**changed))


def test_open_clips_own_rules(clip: Clip) -> None:
    rules = text_rules(clip, text_tower(clip), None)
    assert (rules.clean, rules.pad_id, rules.end_id, rules.missing) == ("lower", 0, 49407, "")
    clean = text_rules(renamed(clip, "tiny", tokenizer_kwargs={"clean": "canonicalize"}), text_tower(clip), None).clean
    assert clean == "canonicalize"


def test_a_hugging_face_tokenizer_gives_open_clips_ids(bert: Clip, exported: Path) -> None:
    folder = bert.architecture.model_cfg["text_cfg"]["hf_tokenizer_name"]
    reference = open_clip.tokenizer.HFTokenizer(folder, context_length=24)
    found = Tokenizer(exported / "tiny-bert" / "tokenizer.json", spec_of(exported / "tiny-bert")).ids(TEXTS)
    for text, ids, expected in zip(TEXTS, found, reference(TEXTS).tolist(), strict=True):
        assert [*ids, *[0] * (24 - len(ids))] == expected, text
    assert {len(ids) for ids in found} >= {2, 23, 24}


def test_a_hugging_face_tokenizer_loses_its_padding_and_truncation(bert: Clip) -> None:
    rules = text_rules(bert, text_tower(bert), None)
    assert rules.tokenizer_json is not None
    data = json.loads(rules.tokenizer_json)
    assert (data["padding"], data["truncation"]) == (None, None)
    assert (rules.clean, rules.pad_id, rules.end_id) == ("whitespace", 0, 3)


@pytest.mark.parametrize("name", ["tiny", "tiny-bert"])
def test_a_tokenizer_file_gives_the_same_rules_as_the_models_own(
    clip: Clip, bert: Clip, exported: Path, tmp_path: Path, name: str
) -> None:
    model = {"tiny": clip, "tiny-bert": bert}[name]
    shutil.copy(exported / name / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "ł"}}))
    found = text_rules(model, text_tower(model), tmp_path / "tokenizer.json")
    own = text_rules(model, text_tower(model), None)
    assert (found.clean, found.end_id) == (own.clean, own.end_id)
    # A BERT's mask says what pads, whatever its tokenizer says.
    assert found.pad_id == (open_clip.tokenizer.SimpleTokenizer().encoder["ł"] if name == "tiny" else 0)
    assert found.reference is not None
    assert own.reference is not None
    texts = [text for text in TEXTS if text]
    ids = found.reference(texts)
    expected = own.reference(texts)
    np.testing.assert_array_equal(
        np.where(expected == own.pad_id, -5, expected), np.where(ids == found.pad_id, -5, ids)
    )


def test_padding_is_never_guessed(clip: Clip, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    shutil.copy(exported / "tiny" / "tokenizer.json", path)
    with pytest.raises(Refused, match=r"does not say what pads a text; put the model's tokenizer_config\.json beside"):
        text_rules(clip, text_tower(clip), path)
    library = tokenizers.Tokenizer.from_file(str(path))
    library.enable_padding(pad_id=7)
    library.save(str(path))
    assert text_rules(clip, text_tower(clip), path).pad_id == 7


def test_siglips_ids_come_from_open_clips_class(clip: Clip, exported: Path) -> None:
    path = exported / "tiny" / "tokenizer.json"
    assert text_rules(renamed(clip, "ViT-B-16-SigLIP"), text_tower(clip), path).pad_id == 1
    assert text_rules(renamed(clip, "ViT-B-16-SigLIP2"), text_tower(clip), path).pad_id == 0
    siglip = registered_architecture("ViT-B-16-SigLIP", None).model_cfg["text_cfg"]
    assert siglip["hf_tokenizer_name"] == "timm/ViT-B-16-SigLIP"
    rules = text_rules(renamed(clip, "ViT-B-16-SigLIP", **siglip), text_tower(clip), None)
    assert (rules.tokenizer_json, rules.reference) == (None, None)
    assert (rules.clean, rules.pad_id, rules.end_id) == ("canonicalize", 1, 1)
    assert rules.missing == "its tokenizer is on the hub (timm/ViT-B-16-SigLIP) and cannot be had from here"


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"tokenizer_kwargs": {"reduction_mask": "shuffle"}},
        {"hf_tokenizer_name": "x", "tokenizer_mode": "clips"},
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"strip_sep_token": True}},
    ],
)
def test_rules_that_the_runtime_cannot_follow_leave_the_tokenizer_out(clip: Clip, text_cfg: dict[str, Any]) -> None:
    rules = text_rules(renamed(clip, "tiny", **text_cfg), text_tower(clip), None)
    assert rules.tokenizer_json is None
    assert rules.missing


def test_a_text_tower_whose_config_names_no_tokenizer_is_refused(bert: Clip) -> None:
    with pytest.raises(Refused, match="no hf_tokenizer_name; add one, or give --tokenizer FILE"):
        text_rules(renamed(bert, "tiny-bert", hf_tokenizer_name=None), text_tower(bert), None)


def test_a_folder_without_a_tokenizer_is_named(bert: Clip, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no tokenizer that transformers can load"):
        text_rules(renamed(bert, "x", hf_tokenizer_name=str(tmp_path)), text_tower(bert), None)


def test_a_file_that_is_no_tokenizer_is_named(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(FormatError, match=r"t\.json is not a tokenizer"):
        text_rules(clip, text_tower(clip), tmp_path / "t.json")


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(bert: Clip, exported: Path) -> None:
    with pytest.raises(Refused, match="has ids up to 49407, but the text tower has embeddings for"):
        text_rules(bert, text_tower(bert), exported / "tiny" / "tokenizer.json")


def test_a_tokenizer_that_pads_with_a_token_the_mask_does_not_hide_is_refused(bert: Clip) -> None:
    class Other:
        """The tower, hiding another id."""

        embedding, pooling, trim, pad_id = text_tower(bert).embedding, "mean", True, 5

    tower: Any = Other()
    with pytest.raises(Refused, match="pads with id 0, but the text tower's mask hides 5"):
        text_rules(bert, tower, None)


def test_a_tokenizer_without_an_end_is_refused(clip: Clip, exported: Path, tmp_path: Path) -> None:
    data = json.loads((exported / "tiny" / "tokenizer.json").read_text())
    data["post_processor"] = None
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(Refused, match="no marker at the end of a text"):
        text_rules(renamed(clip, "siglip"), text_tower(clip), tmp_path / "t.json")


def test_ids_that_differ_from_the_reference_are_refused(clip: Clip, exported: Path) -> None:
    rules = text_rules(clip, text_tower(clip), None)
    assert rules.reference is not None
    path, spec = exported / "tiny" / "tokenizer.json", spec_of(exported / "tiny")
    prove_tokenizer(path, spec, rules.reference, TEXTS)
    wrong = [
        dataclasses.replace(spec, clean="whitespace"),
        dataclasses.replace(spec, pad_id=1),
        dataclasses.replace(spec, end_id=5),
    ]
    for changed in wrong:
        with pytest.raises(Refused, match=r"tokenizer\.json gives ids"):
            prove_tokenizer(path, changed, rules.reference, TEXTS)


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
def test_made_up_ids_look_like_texts(load: Load, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(name)
    tower: TextTower = text_tower(model)
    rules = module._no_tokenizer(model, tower, "lower", "test")
    ids = made_up_ids(rules, tower, model.text_cfg.context_length, count=20)
    assert ids.shape == (20, model.text_cfg.context_length)
    assert ids.dtype == np.int64
    assert 0 <= ids.min() < ids.max() < tower.embedding.num_embeddings
    lengths = [int(np.flatnonzero(row != rules.pad_id)[-1]) + 1 for row in ids]
    assert lengths[0] == ids.shape[1]
    assert len(set(lengths)) > 5
    if name != "tiny-bert":
        assert all(row[: length - 1].max() < row[length - 1] for row, length in zip(ids, lengths, strict=True))
