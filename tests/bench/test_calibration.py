from __future__ import annotations

import numpy as np
import pytest

from pocketlens_bench import near_duplicates
from pocketlens_bench.calibration import area, run, statistics
from pocketlens_bench.measure import Options


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, 40).astype(np.float64)  # with many equal ones
    answered = rng.random(40) < 0.4
    pairs = [np.sign(one - other) for one in values[answered] for other in values[~answered]]
    assert area(values, answered) == pytest.approx(0.5 + np.mean(pairs) / 2)


def test_statistics_equal_those_of_one_query_at_a_time(rng: np.random.Generator) -> None:
    def units(count: int) -> np.ndarray:
        vectors = rng.normal(0.2, 1, (count, 8))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    queries, rows, names = units(5), units(70), units(20)
    best_name = (rows @ names.T).max(axis=1)
    found = statistics(
        queries.astype(np.float32), rows.astype(np.float32), best_name.astype(np.float32), names.astype(np.float32)
    )
    for number, query in enumerate(queries):
        ranked = np.sort(rows @ query)[::-1]
        of_names = rows @ names.T  # (rows, names)
        over = (rows @ query - of_names.mean(axis=1)) / of_names.std(axis=1)
        z = (rows @ query - ranked.mean()) / ranked.std()
        margin = ranked[0] - ranked[1:50].mean()
        away, centred = query - names.mean(axis=0), rows - rows.mean(axis=0)
        cosines = centred @ away / np.linalg.norm(centred, axis=1) / np.linalg.norm(away)
        expected = {
            "cosine": ranked[0], "z": z.max(), "margin": margin, "margin in deviations": margin / ranked.std(),
            "mean z of the best 5": np.sort(z)[-5:].mean(), "centred cosine": cosines.max(),
            "z over the vocabulary": over.max(), "z + z over the vocabulary": (z + over).max(),
            "cosine less the best name's": (rows @ query - best_name).max(),
        }  # fmt: skip
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name][number] == pytest.approx(value, abs=1e-4), name


def test_the_sample_gallery_alone_makes_a_report() -> None:
    lines: list[str] = []
    report = run(Options(quick=True), lines.append)
    assert lines == [
        "sample gallery",
        "no bundle of EmojiCIR's pictures was given: only the sample gallery is measured",
    ]
    areas = next(iter(report.tables.values()))
    assert {row["part"] for row in areas} == {"validation", "test"}
    assert all(0.3 < float(row["AUC"] or 0) < 0.9 for row in areas)
    kept = [row["right best hits kept"] for row in report.tables["Operating curves"] if row["statistic"] == "z"]
    assert kept == sorted(kept, key=lambda share: -float(share or 0))
    assert kept[0] == 1.0


def test_changes_keep_vectors_nearer_the_less_they_change() -> None:
    report = near_duplicates.run(Options(quick=True), lambda line: None)
    changed, pairs = report.tables.values()
    median = {str(row["change"]): float(row["median"] or 0) for row in changed}
    assert median["JPEG of quality 90"] >= median["JPEG of quality 50"] >= median["a quarter of the size, quality 70"]
    assert pairs[0][">= 0.99"] == 0
