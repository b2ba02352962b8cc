from __future__ import annotations

from pathlib import Path

from pocketlens.model import Model
from pocketlens_bench.asymmetric_models import Entrant
from pocketlens_bench.backbones_tables import INT8
from pocketlens_bench.backbones_towers import contents, latencies
from tests.bench.asymmetric_models import SAME, write_seeing

_PAGE = """# quick

|  | image |
| --- | --- |
| size | 3.9 |

## text tower

| plan (on the inputs that steer) | MB | latency over float32 |  |
| --- | --- | --- | --- |
| dynamic int8 | 9.9 | 0.99 | chosen |

## image tower

| plan (on the inputs that steer) | MB | latency over float32 |  |
| --- | --- | --- | --- |
| int8 storage | 4.0 | 1.00 |  |
| static int8, minmax | 3.9 | 0.66 | chosen |

That is all.
"""


def _entrant(folder: Path, label: str, role: str = "query") -> Entrant:
    return Entrant(label, "heavy" if role == "heavy" else "query", Model.open(write_seeing(folder, SAME, name=label)))


def test_plans_are_read_from_the_page(tmp_path: Path) -> None:
    entrant = _entrant(tmp_path / "quick", "quick")
    assert contents(entrant)["plans"] == []
    (tmp_path / "quick" / "quantization.md").write_text(_PAGE)
    found = contents(entrant)
    assert found["plans"][1] == {
        "plan (on the inputs that steer)": "static int8, minmax", "MB": "3.9", "latency over float32": "0.66",
        "chosen": "chosen",
    }  # fmt: skip
    assert (len(found["plans"]), found["batch_norms"], found["bytes"]) == (2, 0, entrant.image_bytes)


def test_int8_is_compared_with_its_own_float32(tmp_path: Path) -> None:
    names = ("big", "quick", "quick" + INT8)
    entrants = [_entrant(tmp_path / name, name, "heavy" if name == "big" else "query") for name in names]
    found = latencies(entrants, (None, 32))
    assert list(found["own"]) == list(names)
    assert found["own"]["big"]["of_heavy"] == 1
    assert found["own"]["quick"]["of_float32"] is None
    assert found["own"]["quick" + INT8]["of_float32"] > 0
    assert "big" not in found["32"]  # whose own side is what its galleries are encoded at
