from __future__ import annotations

from pocketlens_bench.imports import closure, import_ms, size_mb


def test_what_a_package_needs_is_followed_without_extras() -> None:
    assert {"usearch", "numpy", "numkong"} <= closure("usearch")
    assert closure("numpy") == {"numpy"}
    assert closure("no-such-package") == set()


def test_sizes_add_up() -> None:
    assert size_mb(set()) == 0
    assert size_mb({"click", "ftfy"}) > size_mb({"ftfy"}) > 0


def test_an_import_after_itself_costs_nothing() -> None:
    assert import_ms("numpy", after="numpy") < import_ms("numpy")
