"""Which method `auto` takes, and what a bundle lacks for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pocketlens.compose.inversion import OF_FEATURES, fit_command
from pocketlens.compose.method import Method, Query
from pocketlens.compose.registry import METHODS, check_wanted

UNMEASURED = ("centred-product", "pdv-lincir", "lincir", "weicom")
"""What `auto` tries in turn where nothing was measured.

Centring leads the training-free methods of the BASIC paper's tables; the direction improves the inversion that it
stands on; WeiCom needs no more than the gallery's statistics, and unlike the plain product it does not care where
cosines between texts and pictures lie.
"""

REMAKE = "pocketlens pack --gallery B/gallery --text NEW --image NEW --out B2"
"""From a bundle B and a model folder NEW, which `pocketlens fit` writes, to a bundle that has what was fitted."""


QUERY = ("image", "features", "text")
"""The needs of a method that are parts of the query."""


def choose(query: Query, has: Callable[[str], bool], measured: Mapping[str, float]) -> Method:
    """Return the method for a query: the only part's own, or the best measured one of those that use both parts.

    Args:
        query: the wanted parts.
        has: whether the bundle has a need: "concepts", "inversion/<recipe>".
        measured: figures by method name, higher is better; names that are no methods are ignored.

    Raises:
        BadQuery: the query has no wanted part.
    """
    check_wanted(query)
    if query.image is None or not query.texts:
        return METHODS["text" if query.image is None else "image"]
    usable = [method for method in METHODS.values() if _uses_both(method) and not missing(method, has)]
    rated = [method for method in usable if math.isfinite(measured.get(method.name, math.nan))]
    if rated:
        return max(rated, key=lambda method: measured[method.name])
    names = {method.name for method in usable}
    return METHODS[next(name for name in UNMEASURED if name in names)]


def missing(method: Method, has: Callable[[str], bool]) -> list[str]:
    """Return what a bundle lacks for a method, each with the commands that make it; empty when it can be used.

    `REMAKE` is the second of them in full.
    """
    return [_words(need) for need in method.needs if need not in QUERY and not has(need)]


def _uses_both(method: Method) -> bool:
    return "image" in method.needs and "text" in method.needs


def _words(need: str) -> str:
    if need == "concepts":
        return "a vocabulary (concepts.npz): pocketlens fit concepts, then pocketlens pack"
    recipe = need.removeprefix("inversion/")
    network = f"{need}.onnx" + (" of the image tower's features" if recipe in OF_FEATURES else "")
    return f"an inversion network {network}: {fit_command(recipe)}, then pocketlens pack"
