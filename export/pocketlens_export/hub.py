"""The model hub, asked only when a tag or a tokenizer lives there, and never waited for when it cannot be reached.

Without a network huggingface_hub retries for long and prints each try. Here the cache is looked at first and the hub's
host is tried once. That host is enough: open_clip takes the weights of every registered tag from the hub, also where
an address of their own is registered beside it.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketlens.errors import PocketlensError

_TIMEOUT_S = 3.0


def hub_reachable() -> bool:
    """Return whether the hub can be asked: not switched off by HF_HUB_OFFLINE, and its host accepts a connection."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if "https" in urllib.request.getproxies():
        return True  # the proxy resolves names; its own errors are reported as they come
    url = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def checkpoint_of_tag(architecture: str, tag: str, config: Mapping[str, Any]) -> Path:
    """Return the local path of a registered tag's checkpoint, downloaded when it is not in the cache.

    Args:
        architecture: open_clip's model name, for the message.
        tag: the registered tag, for the message.
        config: open_clip's entry for the tag.

    Raises:
        PocketlensError: it is not in the cache and cannot be downloaded.
    """
    cached = _cached(config)
    if cached is not None:
        return cached
    local = f"give a local checkpoint instead: --model {architecture} --pretrained FILE"
    if not hub_reachable():
        raise PocketlensError(
            f"the weights of {architecture}, tag {tag}, must be downloaded and there is no network; {local}"
        )
    import open_clip

    try:
        return Path(open_clip.download_pretrained(dict(config)))
    except Exception as error:  # the hub's client, urllib and open_clip each raise their own
        reason = " ".join(str(error).split())[:200]
        raise PocketlensError(
            f"the weights of {architecture}, tag {tag}, cannot be downloaded ({reason}); {local}"
        ) from error


def check_text_model(name: str) -> None:
    """Raise unless the configuration of a Hugging Face text model is a local folder, in the cache, or can be asked for.

    Raises:
        PocketlensError: it is on the hub and there is no network.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir() or hub_reachable():
        return
    if name.count("/") > 1 or not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise PocketlensError(
            f"the text model {name} must be downloaded and there is no network; "
            "give --config FILE whose hf_model_name is a local folder"
        )


def _cached(config: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, name = str(config.get("hf_hub", "")).rpartition("/")
    if not repository:
        return None
    for file in [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None
