from __future__ import annotations

from pathlib import Path

from pocketlens.model import Model
from pocketlens_bench.cold_start import _POCKETLENS, Contender, first_hit, summarize
from pocketlens_bench.models import make_bundle


def test_ratios_are_taken_round_by_round_against_the_last() -> None:
    found = {"ours": [(1.0, 10.0), (4.0, 10.0), (3.0, 30.0)], "base": [(10.0, 100.0), (10.0, 100.0), (10.0, 100.0)]}
    ours, base = summarize(found, {"ours": "a.jpg", "base": "b.jpg"})
    assert (ours["p50 ms"], ours["peak MB"], ours["time ratio"], ours["memory ratio"]) == (3.0, 10.0, 0.3, 0.1)
    assert (base["time ratio"], base["first hit"]) == (1.0, "b.jpg")


def test_a_bundle_of_synthetic_items_answers_a_text_in_a_new_process(colours: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", Model.open(colours), rows=20)
    hit = first_hit(Contender("pocketlens", _POCKETLENS, (str(bundle), "1", "red")))
    assert hit in {f"{row:06}.jpg" for row in range(20)}
