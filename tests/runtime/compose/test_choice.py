from __future__ import annotations

import pytest

from pocketlens.compose import METHODS, Query, Text, choose, missing
from pocketlens.compose.choice import UNMEASURED
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X

BOTH = Query(X, (Text("a"),))


def everything(need: str) -> bool:
    return True


def nothing(need: str) -> bool:
    return False


def test_one_part_has_its_own_method() -> None:
    figures = {"sum": 0.9, "lincir": 0.8}
    assert choose(Query(X, ()), everything, figures).name == "image"
    assert choose(Query(None, (Text("a"),), 0.0), everything, figures).name == "text"
    with pytest.raises(BadQuery, match="a query needs something wanted"):
        choose(Query(None, (), 0.0), everything, figures)


def test_the_best_measured_one_that_can_be_used() -> None:
    figures = {
        "sum": 0.2,
        "lincir": 0.5,
        "basic": 0.4,
        "text": 0.9,
        "image": 0.9,
        "unheard-of": 1.0,
        "slerp": float("nan"),
    }
    assert choose(BOTH, everything, figures).name == "lincir"
    assert choose(BOTH, lambda need: need == "concepts", figures).name == "basic"
    assert choose(BOTH, nothing, figures).name == "sum"
    assert choose(BOTH, nothing, {"lincir": 0.5}).name == "weicom"  # what was measured cannot be used
    assert choose(BOTH, everything, {"slerp": 0.3, "sum": 0.3}).name == "sum"  # of equals the first


def test_a_fixed_order_where_nothing_was_measured() -> None:
    assert choose(BOTH, everything, {}).name == UNMEASURED[0] == "centred-product"
    assert choose(BOTH, lambda need: need == "inversion/lincir", {}).name == "pdv-lincir"
    assert choose(BOTH, nothing, {}).name == UNMEASURED[-1] == "weicom"
    assert all("image" in METHODS[name].needs and "text" in METHODS[name].needs for name in UNMEASURED)


def test_what_is_missing_is_said_with_its_cure() -> None:
    assert missing(METHODS["sum"], nothing) == []
    assert missing(METHODS["basic"], nothing) == [
        "a vocabulary (concepts.npz): pocketlens fit concepts, then pocketlens pack"
    ]
    cure = "an inversion network inversion/lincir.onnx: pocketlens fit inversion --recipe lincir, then pocketlens pack"
    assert missing(METHODS["pdv-lincir"], nothing) == [cure]
    assert all(missing(method, everything) == [] for method in METHODS.values())
