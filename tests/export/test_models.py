"""The architectures that must work, with seeded weights, through the command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import MissingPart
from pocketlens.inspect import verify
from pocketlens.model import Model


@pytest.mark.parametrize(
    ("name", "dim", "trim", "channels"),
    [
        ("MobileCLIP2-S0", 512, False, 1024),
        ("ViT-B-32", 512, True, None),
        ("ViT-B-16-SigLIP", 768, False, None),
        pytest.param("MobileCLIP-S1", 512, False, 1024, marks=pytest.mark.soak),  # of MobileCLIP2-S0's family
        pytest.param("MobileCLIP2-S2", 512, False, 1280, marks=pytest.mark.soak),
        pytest.param("MobileCLIP-B", 512, True, None, marks=pytest.mark.soak),  # its text tower is ViT-B-32's
    ],
)
def test_an_architecture_is_exported_and_verified(
    tmp_path: Path, name: str, dim: int, trim: bool, channels: int | None
) -> None:
    out = tmp_path / "model"
    command = [
        sys.executable,
        "-m",
        "pocketlens",
        "export",
        "--model",
        name,
        "--pretrained",
        "random:0",
        "--out",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    quality = json.loads(done.stdout)["quality"]
    for tower in ("image", "text"):
        assert quality[f"parity_{tower}_min_cosine"] >= 0.99999
        assert quality[f"parity_{tower}_max_abs"] <= 1e-4
    assert quality["mean_pairwise_cosine"] <= 0.95
    # Padding moves the embedding exactly where the architecture looks at it.
    assert (quality["trim_max_abs"] <= 1e-5) == trim
    verify(out)
    model = Model.open(out)
    assert model.manifest.space.dim == dim
    assert model.manifest.text is not None
    assert model.manifest.text.trim == trim
    features = ImageEncoder(model).spec.features
    assert (None if features is None else features.channels) == channels
    pixels = np.zeros((1, ImageEncoder(model).spec.side, ImageEncoder(model).spec.side, 3), dtype=np.uint8)
    assert ImageEncoder(model).encode_pixels(pixels).shape == (1, dim)
    if name == "ViT-B-16-SigLIP":
        assert "timm/ViT-B-16-SigLIP" in done.stderr
        with pytest.raises(MissingPart, match="without a tokenizer"):
            TextEncoder(model)
    else:
        assert TextEncoder(model).encode(["a red bicycle"]).shape == (1, dim)
