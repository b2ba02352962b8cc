"""The query model's towers: the light ones with a map folded in, proven, and the golden values that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from pocketlens.errors import Refused
from pocketlens.files import read_arrays
from pocketlens.model import GOLDEN, Model
from pocketlens_export.align.fold import OUTPUT, fold_map, load_tower
from pocketlens_export.align.maps import Map, to_units
from pocketlens_export.golden import write_golden
from pocketlens_export.graph import check_graph
from pocketlens_export.parity import open_graph

Tower = Literal["image", "text"]
MAX_ABS = 1e-5  # of a folded graph to the map of what the light graph gives: float32's rounding
_DRAWS = 32
_KEYS = {"image": ("pixels",), "text": ("text_ids",)}
_TEXTS = ("text_utf8", "text_offsets")


def write_towers(light: Model, maps: Mapping[Tower, Map], folder: Path) -> None:
    """Write the graphs of the light model that a map is given for, and golden.npz, into the query model's folder.

    Golden embeddings are the light model's, mapped by numpy; their bars are as wide as the map makes the light ones.

    Raises:
        FormatError: a tower is no ONNX file.
        Refused: a folded graph differs by more than 1e-5 from the map of what the light graph gives.
    """
    arrays: dict[str, Any] = {}
    for tower, map in maps.items():
        golden = _golden_of(light, tower)
        spec = light.manifest.image if tower == "image" else light.manifest.text
        assert spec is not None
        path = light.file(spec.file)
        graph = load_tower(path)
        fold_map(graph, map)
        check_graph(graph, folder / spec.file)
        onnx.save(graph, str(folder / spec.file))
        _prove(path, folder / spec.file, map, _feeds(light, tower, golden))
        arrays |= golden | mapped_golden(tower, golden, map)
    write_golden(folder / GOLDEN, arrays)


def mapped_golden(tower: Tower, golden: Mapping[str, NDArray[Any]], map: Map) -> dict[str, Any]:
    """Return a tower's golden embeddings and bars after a map.

    What a device may compute differently before the map is turned and stretched by it. So each bar is the worse of the
    light tower's own and of what 32 random deviations of that size become, each at every golden embedding.
    """
    embedding = golden[f"{tower}_embedding"].astype(np.float64)
    bar, reach = float(golden[f"{tower}_min_cosine"]), float(golden[f"{tower}_max_abs"])
    expected, min_cosine, max_abs = map.apply(embedding), bar, reach
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        drawn = rng.standard_normal(embedding.shape)
        across = to_units(drawn - (drawn * embedding).sum(axis=1, keepdims=True) * embedding)
        turned = map.apply(bar * embedding + np.sqrt(max(1 - bar**2, 0)) * across)
        min_cosine = min(min_cosine, float((turned * expected).sum(axis=1).min()))
        moved = map.apply(to_units(embedding + reach * rng.uniform(-1, 1, embedding.shape)))
        max_abs = max(max_abs, float(np.abs(moved - expected).max()))
    return {
        f"{tower}_embedding": expected.astype(np.float32),
        f"{tower}_min_cosine": np.float32(min_cosine),
        f"{tower}_max_abs": np.float32(max_abs),
    }


def _golden_of(light: Model, tower: Tower) -> dict[str, NDArray[Any]]:
    names = [*_KEYS[tower], f"{tower}_embedding", f"{tower}_min_cosine", f"{tower}_max_abs"]
    names += _TEXTS if tower == "text" else ()
    return read_arrays(light.file(GOLDEN), names)


def _feeds(light: Model, tower: Tower, golden: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    if tower == "image":
        return {"pixels": golden["pixels"]}
    spec = light.manifest.text
    assert spec is not None
    ids = golden["text_ids"]
    return {"input_ids": ids, "pseudo_tokens": np.zeros((len(ids), 0, spec.token_dim), dtype=np.float32)}


def _prove(light: Path, folded: Path, map: Map, feeds: dict[str, NDArray[Any]]) -> None:
    before, after = (open_graph(path).run([OUTPUT], feeds)[0] for path in (light, folded))
    largest = float(np.abs(after - map.apply(before)).max())
    if not largest <= MAX_ABS:
        raise Refused(
            f"{folded.name} with the map in it differs by {largest:.2g} from the map of what {light} gives, expected "
            f"at most {MAX_ABS}"
        )
