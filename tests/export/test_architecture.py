from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from pocketlens.errors import FormatError, PocketlensError, Refused
from pocketlens_export.architecture import local_architecture, registered_architecture, registered_tag
from tests.export.tiny import clip_config, write_config

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "side", "mode", "interpolation", "mean_std"),
    [
        ("MobileCLIP-S1", 256, "shortest", "bilinear", PLAIN),
        ("MobileCLIP2-S0", 256, "shortest", "bilinear", PLAIN),
        ("MobileCLIP2-S2", 256, "shortest", "bilinear", PLAIN),
        ("MobileCLIP-B", 224, "shortest", "bilinear", PLAIN),
        ("MobileCLIP2-S3", 256, "shortest", "bilinear", OPENAI),
        ("ViT-B-32", 224, "shortest", "bicubic", OPENAI),
        ("ViT-B-16-SigLIP", 224, "squash", "bicubic", HALF),
    ],
)
def test_preprocessing_is_that_of_the_registered_tags(
    name: str, side: int, mode: str, interpolation: str, mean_std: tuple[Any, Any]
) -> None:
    found = registered_architecture(name, None).preprocessing
    assert (found.side, found.mode, found.interpolation) == (side, mode, interpolation)
    assert (found.mean, found.std) == mean_std


def test_a_tag_decides_where_tags_differ() -> None:
    with pytest.raises(Refused, match=r"ViT-L-14 has tags that preprocess pictures differently.*--config"):
        registered_architecture("ViT-L-14", None)
    openai = registered_architecture("ViT-L-14", "openai").preprocessing
    laion = registered_architecture("ViT-L-14", "laion2b_s32b_b82k").preprocessing
    assert (openai.mean, openai.std) == OPENAI
    assert (laion.mean, laion.std) == HALF


def test_an_architecture_without_a_tag_is_refused() -> None:
    assert not open_clip.list_pretrained_tags_by_model("ViT-M-16")
    with pytest.raises(Refused, match="ViT-M-16 has no registered tag"):
        registered_architecture("ViT-M-16", None)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(PocketlensError, match=r"no model named 'MobileCLIP-S0'; did you mean .*MobileCLIP-S1"):
        registered_architecture("MobileCLIP-S0", None)


def test_tags_are_spelled_as_open_clip_does() -> None:
    assert registered_tag("ViT-B-32", "LAION2B-s34b-b79k") == "laion2b_s34b_b79k"
    assert registered_tag("ViT-B-32", "checkpoint.pt") is None


def test_a_local_config_gives_its_own_preprocessing(configs: Path) -> None:
    found = local_architecture(configs / "tiny.json")
    assert (found.name, dict(found.tags), found.preprocessing.side) == ("tiny", {}, 32)
    assert found.preprocessing.mean == (0.4, 0.5, 0.6)


def test_folders_beside_a_config_are_found_from_anywhere(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text_cfg = local_architecture(configs / "tiny-bert.json").model_cfg["text_cfg"]
    assert Path(text_cfg["hf_model_name"]) == (configs / "bert").resolve()
    assert Path(text_cfg["hf_tokenizer_name"]) == (configs / "bert").resolve()


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("preprocess_cfg"), "object 'preprocess_cfg' is missing"),
        (drop("model_cfg"), "object 'model_cfg' is missing"),
        (drop("model_cfg", "text_cfg"), "object 'text_cfg' is missing"),
        (drop("preprocess_cfg", "mean"), "'mean' is missing; there is no default for it"),
        (drop("preprocess_cfg", "std"), "'std' is missing"),
        (drop("preprocess_cfg", "interpolation"), "'interpolation' is missing"),
        (drop("preprocess_cfg", "resize_mode"), "'resize_mode' is missing"),
        (put("longest", "preprocess_cfg", "resize_mode"), "resize_mode is 'longest', expected 'shortest' or 'squash'"),
        (put("random", "preprocess_cfg", "interpolation"), "interpolation is 'random'"),
        (put([0.5], "preprocess_cfg", "mean"), r"mean is \[0.5\], expected three numbers"),
        (put([0.5, 0.5, 0], "preprocess_cfg", "std"), "expected positive numbers"),
        (put(224, "preprocess_cfg", "size"), "size is 224, but image_size is 32"),
        (put([32, 48], "model_cfg", "vision_cfg", "image_size"), "expected a square"),
    ],
)
def test_a_config_with_something_missing_or_wrong_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    config = clip_config()
    change(config)
    with pytest.raises(FormatError, match=message):
        local_architecture(write_config(tmp_path / "c.json", config))


@pytest.mark.parametrize("size", ["a", "32", "", None, [], ["a", "a"], [[32], [32]], 32.5, 0, -32, True, {}])
def test_an_image_size_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    config = clip_config()
    config["model_cfg"]["vision_cfg"]["image_size"] = size
    with pytest.raises(FormatError, match=r"c\.json: image_size is .*, expected a square of at least 1 pixel"):
        local_architecture(write_config(tmp_path / "c.json", config))


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(FormatError, match=r"c\.json"):
        local_architecture(tmp_path / "c.json")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.json cannot be read: No such file"):
        local_architecture(tmp_path / "none.json")
