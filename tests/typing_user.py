"""What a user of the library writes. Never run: mypy --strict checks it, so that the public types stay a promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pocketlens
from pocketlens import BadImage, BadQuery, CorruptFile, FormatError, Hit, Hits, Lens, Model, PocketlensError


def search(bundle: str, picture: Image.Image) -> list[tuple[str, float]]:
    with pocketlens.open(bundle, threads=2) as lens:
        hits: list[Hit] = lens.search(text="a red bicycle", k=5)
        hits += lens.search(image=b"...")
        hits += lens.search(image=Path("me.jpg"))
        hits += lens.search(text="at night", image=picture)
        vector: NDArray[np.float32] = lens.encode(text="at night", image="me.jpg")
        hits += lens.search_vector(vector, k=3)
        hits += lens.search(parts=[("image", Path("me.jpg"), 1.0), ("text", "at night", 2.0), ("text", "people", -0.5)])
        hits += lens.search(text="a boat", where={"year": {"gte": 2020}, "not": {"tag": "sea"}})
        hits += lens.similar("a.jpg", where={"folder": "a"}) + lens.search_vector(vector, where={})
        names: dict[str, str] = lens.attributes
        print(names)
        composed: Hits = lens.search(
            text="at night", image="me.jpg", negative=["people"], method="slerp", parameters={"text_share": 0.7}
        )
        explained: tuple[str, str, tuple[tuple[str, float], ...]] = (composed.method, composed.why, composed.names)
        print(explained, composed.parameters, composed[0].score)
        both: bool = lens.has_tower("text") and lens.has_tower("image")
        assert both
    return [(hit.id, hit.cosine) for hit in hits]


def show(hit: Hit) -> str:
    uri: str = hit.uri
    size: tuple[int, int] = (hit.width, hit.height)
    attributes: dict[str, Any] = hit.attributes
    return f"{uri} {size} {hit.z:.2f} {attributes}"


def encode(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    model: Model = Model.open(pocketlens.find_model("lens-base"))
    texts = pocketlens.TextEncoder(model).encode(["a red bicycle"])
    pictures = pocketlens.ImageEncoder(model, threads=1).encode([folder / "a.jpg", b"...", "b.png"])
    dim: int = model.manifest.space.dim
    assert texts.shape == (1, dim)
    return texts, pictures


def careful(path: Path) -> Lens | None:
    try:
        return pocketlens.open(path)
    except CorruptFile as error:
        print(error.path)
    except (FormatError, pocketlens.EncoderMismatch, pocketlens.MissingPart, pocketlens.Refused, BadQuery) as error:
        message: str = str(error)
        print(message)
    except BadImage as error:
        reason: str = error.reason
        print(reason)
    except PocketlensError:
        raise
    return None
