"""Picture formats by option, from the command line and from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import pocketlens
from pocketlens.errors import BadImage, BadQuery


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (230, 20, 20)).save(tmp_path / "red.gif")
    return tmp_path / "red.gif"


def test_a_lens_reads_what_it_was_opened_for(bundle: Path, gif: Path) -> None:
    with pocketlens.open(bundle) as lens, pytest.raises(BadImage, match="GIF is read only where formats asks for it"):
        lens.search(image=gif)
    with pocketlens.open(bundle, formats=["gif"]) as lens:
        assert lens.search(image=gif, k=1)[0].id == lens.search(text="red", k=1)[0].id
        assert lens.search(parts=[("image", gif), ("text", "red")], k=1)
    with pytest.raises(BadQuery, match="'psd' is no picture format that can be read"):
        pocketlens.open(bundle, formats=["psd"])


def test_the_commands_take_formats(bundle: Path, colours: Path, gif: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from pocketlens.cli import main; main()", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("search", bundle, "--image", gif, "-k", 1).returncode == 1
    assert run("search", bundle, "--image", gif, "-k", 1, "--formats", "bmp, gif").returncode == 0
    out = gif.parent / "out"
    assert "no picture could be read" in run("index", gif.parent, "--out", out, "--model", colours).stderr
    assert run("index", gif.parent, "--out", out, "--model", colours, "--formats", "gif").returncode == 0
