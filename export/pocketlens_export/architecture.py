"""What is to be built: an open_clip model configuration, its preprocessing and its registered tags. No weights here.

Preprocessing comes from the architecture's registered tags or from a --config file, never from open_clip's defaults:
without weights open_clip answers OpenAI's mean, std and bicubic for every architecture.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from pocketlens.errors import FormatError, PocketlensError, Refused

_PREPROCESSING_KEYS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pictures become a tower's input. `mean` and `std` are per RGB channel, of values in 0..1."""

    side: int
    mode: Literal["shortest", "squash"]
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An open_clip architecture.

    Attributes:
        name: a registered name, or the stem of the --config file.
        model_cfg: open_clip's model_cfg; local folders named in it are resolved.
        preprocessing: from the registered tags or the config file.
        tags: the registered tags, by open_clip's spelling; empty for a --config.
    """

    name: str
    model_cfg: dict[str, Any]
    preprocessing: Preprocessing
    tags: Mapping[str, Mapping[str, Any]]


def registered_architecture(name: str, tag: str | None) -> Architecture:
    """Return a registered open_clip architecture.

    Args:
        name: open_clip's model name, for example "MobileCLIP2-S0".
        tag: the tag whose preprocessing is meant; None when the weights come from elsewhere, and then all of the
            architecture's tags must agree.

    Raises:
        PocketlensError: the name is unknown.
        Refused: no tag is registered, or the tags' preprocessing differs, so that it would have to be guessed.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    names = open_clip.list_models()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise PocketlensError(f"open_clip {open_clip.__version__} has no model named {name!r}{hint}")
    tags = {key: get_pretrained_cfg(name, key) for key in open_clip.list_pretrained_tags_by_model(name)}
    model_cfg = open_clip.get_model_config(name)
    side = _side(model_cfg, f"open_clip's {name}")
    chosen = [tag] if tag is not None else list(tags)
    found = {_preprocessing(tags[key], side, f"open_clip's {name}, tag {key}") for key in chosen}
    if len(found) != 1:
        reason = "tags that preprocess pictures differently" if found else "no registered tag"
        raise Refused(
            f"open_clip's {name} has {reason}, so its preprocessing would be a guess; "
            "give --config FILE with its model_cfg and preprocess_cfg"
        )
    return Architecture(name, model_cfg, found.pop(), tags)


def registered_tag(name: str, tag: str) -> str | None:
    """Return open_clip's spelling of a tag that is registered for an architecture, or None when it is no tag of it."""
    from open_clip.pretrained import get_pretrained_cfg

    spelled = tag.lower().replace("-", "_")
    return spelled if get_pretrained_cfg(name, spelled) else None


def local_architecture(path: Path, *, needs_text: bool = True) -> Architecture:
    """Return the architecture of a local open_clip config: a JSON object with model_cfg and preprocess_cfg.

    `hf_model_name` and `hf_tokenizer_name` that name a folder beside the file are taken from there.

    Args:
        path: the file.
        needs_text: whether it must describe a text tower.

    Raises:
        FormatError: the file is missing, is not such an object, or a field is missing or wrong.
    """
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON: {error}") from None
    for key in ("model_cfg", "preprocess_cfg"):
        if not isinstance(config, dict) or not isinstance(config.get(key), dict):
            raise FormatError(f"{path}: object {key!r} is missing, expected an open_clip config with it")
    model_cfg = deepcopy(config["model_cfg"])
    if not needs_text:
        model_cfg.setdefault("text_cfg", {})
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(model_cfg.get(key), dict):
            raise FormatError(f"{path}: model_cfg: object {key!r} is missing")
    _resolve_folders(model_cfg["text_cfg"], path.parent)
    preprocessing = _preprocessing(config["preprocess_cfg"], _side(model_cfg, str(path)), str(path))
    return Architecture(path.stem, model_cfg, preprocessing, {})


def _resolve_folders(text_cfg: dict[str, Any], folder: Path) -> None:
    for key in ("hf_model_name", "hf_tokenizer_name"):
        name = text_cfg.get(key)
        if isinstance(name, str) and (folder / name).is_dir():
            text_cfg[key] = str((folder / name).resolve())


def _side(model_cfg: Mapping[str, Any], where: str) -> int:
    import open_clip

    vision_cfg = model_cfg["vision_cfg"]
    size = vision_cfg.get("image_size", open_clip.CLIPVisionCfg.image_size)
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if not sides or any(type(side) is not int or side < 1 or side != sides[0] for side in sides):
        raise FormatError(f"{where}: image_size is {size!r}, expected a square of at least 1 pixel")
    return int(sides[0])


def _preprocessing(config: Mapping[str, Any], side: int, where: str) -> Preprocessing:
    for key in _PREPROCESSING_KEYS:
        if config.get(key) is None:
            raise FormatError(f"{where}: preprocess_cfg: {key!r} is missing; there is no default for it")
    mode, interpolation = config["resize_mode"], config["interpolation"]
    if mode not in ("shortest", "squash"):
        raise FormatError(f"{where}: resize_mode is {mode!r}, expected 'shortest' or 'squash'")
    if interpolation not in ("bilinear", "bicubic"):
        raise FormatError(f"{where}: interpolation is {interpolation!r}, expected 'bilinear' or 'bicubic'")
    size = config.get("size", side)
    if size not in (side, [side, side], (side, side)):
        raise FormatError(f"{where}: preprocess_cfg: size is {size}, but image_size is {side}")
    mean, std = _channels(config, "mean", where), _channels(config, "std", where)
    if min(std) <= 0:
        raise FormatError(f"{where}: std is {std}, expected positive numbers")
    return Preprocessing(side, mode, interpolation, mean, std)


def _channels(config: Mapping[str, Any], key: str, where: str) -> tuple[float, float, float]:
    value = config[key]
    if not _is_triple(value):
        raise FormatError(f"{where}: preprocess_cfg: {key} is {value}, expected three numbers")
    return float(value[0]), float(value[1]), float(value[2])


def _is_triple(value: object) -> TypeGuard[Sequence[float]]:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(item, int | float) for item in value)
