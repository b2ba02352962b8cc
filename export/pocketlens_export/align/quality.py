"""What a map is worth: whether another view of a picture, seen by one model, finds the picture seen by the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens_export.align.maps import Float64s, Map, Pairs

RECALL_AT = (1, 10)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a model makes of n test pictures and of one view of each: float32 (n, dim), of length 1."""

    views: Float32s
    originals: Float32s


def ranks_of_own(queries: Float32s | Float64s, gallery: Float32s | Float64s) -> Int64s:
    """Return at which place, from 1 on, each query finds the row of its own number, int64 (n,).

    Of rows that are equally near, the earlier one is in front.

    Args:
        queries: (n, dim), of length 1.
        gallery: (n, dim), of length 1.
    """
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T  # (n, n)
    own = np.diag(scores)[:, np.newaxis]
    earlier = np.tri(len(scores), k=-1, dtype=bool)
    ranks: Int64s = 1 + ((scores > own) | ((scores == own) & earlier)).sum(axis=1, dtype=np.int64)
    return ranks


def measure_pictures(light: Seen, heavy: Seen, map: Map) -> dict[str, Int64s]:
    """Return the ranks of the pictures that views were taken of, by which model saw the view and which the gallery.

    light_heavy is the map's. light_heavy_raw, without a map, is there where the dimensions are equal.
    """
    ranks = {
        "light_light": ranks_of_own(light.views, light.originals),
        "heavy_heavy": ranks_of_own(heavy.views, heavy.originals),
        "light_heavy": ranks_of_own(map.apply(light.views), heavy.originals),
    }
    if light.views.shape[1] == heavy.views.shape[1]:
        ranks["light_heavy_raw"] = ranks_of_own(light.views, heavy.originals)
    return ranks


def measure_texts(test: Pairs, map: Map) -> dict[str, Int64s]:
    """Return the ranks of test texts by the heavy model, asked by the same texts through the light one."""
    ranks = {"light_heavy": ranks_of_own(map.apply(test.light), test.heavy)}
    if test.light.shape[1] == test.heavy.shape[1]:
        ranks["light_heavy_raw"] = ranks_of_own(test.light, test.heavy)
    return ranks


def recalls(ranks: Mapping[str, Int64s], prefix: str) -> dict[str, float]:
    """Return the share of ranks that are at most 1, and 10, by name: <prefix><who>_recall_at_<k>."""
    return {f"{prefix}{who}_recall_at_{k}": float((each <= k).mean()) for who, each in ranks.items() for k in RECALL_AT}
