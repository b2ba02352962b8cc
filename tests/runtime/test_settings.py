from __future__ import annotations

import pytest

from pocketlens.errors import BadQuery
from pocketlens.settings import read_settings


def test_values_by_name() -> None:
    assert read_settings([" noise = 0.5", "formula=a=b", "empty="]) == {"noise": "0.5", "formula": "a=b", "empty": ""}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["noise"], "--set is 'noise', expected A=B"),
        ([" =1"], "--set is ' =1', expected A=B"),
        (["noise=1", " noise=2"], "--set noise is given twice: '1' and '2'"),
    ],
)
def test_what_is_no_setting(settings: list[str], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        read_settings(settings, form="A=B")
