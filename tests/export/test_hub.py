from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
from huggingface_hub import constants
from open_clip.pretrained import get_pretrained_cfg

from pocketlens.errors import PocketlensError
from pocketlens_export import hub

CONFIG = {"hf_hub": "someone/some-model/"}


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is switched off; the hub is a port of this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)


def test_the_hub_is_reachable_when_its_host_accepts_a_connection(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"https://127.0.0.1:{server.getsockname()[1]}")
        assert hub.hub_reachable()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert not hub.hub_reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not hub.hub_reachable()


def test_a_proxy_is_left_to_answer_for_itself(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:3128"})
    assert hub.hub_reachable()


def test_without_a_network_one_line_names_the_local_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    with pytest.raises(PocketlensError) as caught:
        hub.checkpoint_of_tag("MobileCLIP2-S0", "dfndr2b", CONFIG)
    assert str(caught.value) == (
        "the weights of MobileCLIP2-S0, tag dfndr2b, must be downloaded and there is no network; "
        "give a local checkpoint instead: --model MobileCLIP2-S0 --pretrained FILE"
    )


def test_the_weights_of_every_registered_tag_are_on_the_hub() -> None:
    for name, tag in open_clip.list_pretrained():
        config = get_pretrained_cfg(name, tag)
        assert "/" in config["hf_hub"], (name, tag)
        assert "file" not in config, (name, tag)


def test_the_hub_is_asked_even_where_an_address_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_hub(model_id: str, filename: str, cache_dir: Any) -> str:
        return f"/cache/{model_id}/{filename}"

    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", from_hub)
    config = {"url": "https://elsewhere.example/w.pt", "hf_hub": "someone/some-model/w.pt"}
    assert hub.checkpoint_of_tag("M", "t", config) == Path("/cache/someone/some-model/w.pt")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Any) -> str:
        raise RuntimeError("404\nnot found")

    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(PocketlensError, match=r"cannot be downloaded \(404 not found\); give a local"):
        hub.checkpoint_of_tag("MobileCLIP2-S0", "dfndr2b", CONFIG)


def test_a_cached_checkpoint_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cached(repository: str, file: str) -> str | None:
        asked.append((repository, file))
        return "/cache/weights" if file.endswith(".bin") else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    assert hub.checkpoint_of_tag("M", "t", CONFIG) == Path("/cache/weights")
    assert asked == [
        ("someone/some-model", "open_clip_model.safetensors"),
        ("someone/some-model", "open_clip_pytorch_model.bin"),
    ]
    assert hub.checkpoint_of_tag("M", "t", {"hf_hub": "someone/some-model/w.bin"}) == Path("/cache/weights")
