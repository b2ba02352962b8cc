from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.errors import BadQuery
from pocketlens.moments import Moment, read_moment, write_moment

EPOCH = datetime(1970, 1, 1)


def micros(*parts: int) -> int:
    return (datetime(*parts) - EPOCH) // timedelta(microseconds=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("2024", (2024, 1, 1), (2025, 1, 1)),
        ("2023-02", (2023, 2, 1), (2023, 3, 1)),
        ("2024-02", (2024, 2, 1), (2024, 3, 1)),
        ("1969-12", (1969, 12, 1), (1970, 1, 1)),
        ("2024-07-31", (2024, 7, 31), (2024, 8, 1)),
        ("2024-07-31T18:30", (2024, 7, 31, 18, 30), (2024, 7, 31, 18, 31)),
        ("2024-07-31 18:30:05", (2024, 7, 31, 18, 30, 5), (2024, 7, 31, 18, 30, 6)),
        ("2024-07-31T18:30:05.25", (2024, 7, 31, 18, 30, 5, 250_000), (2024, 7, 31, 18, 30, 5, 250_001)),
        ("2024-07-31T18:30:05Z", (2024, 7, 31, 18, 30, 5), (2024, 7, 31, 18, 30, 6)),
        ("2024-07-31T01:30+02:00", (2024, 7, 30, 23, 30), (2024, 7, 30, 23, 31)),
        ("2024-12-31T23:30-01:30", (2025, 1, 1, 1, 0), (2025, 1, 1, 1, 1)),
    ],
)
def test_a_text_stands_for_a_span(text: str, start: tuple[int, ...], stop: tuple[int, ...]) -> None:
    assert read_moment(text) == Moment(micros(*start), micros(*stop))


def test_the_last_year_ends_where_no_datetime_reaches() -> None:
    day = 86_400_000_000
    assert read_moment("9999").stop == read_moment("9999-12").stop == read_moment("9999-12-31").stop
    assert read_moment("9999").stop == micros(9999, 12, 31) + day


def test_dates_and_datetimes_are_taken_as_they_are_written() -> None:
    assert read_moment(date(2024, 7, 31)) == read_moment("2024-07-31")
    assert read_moment(datetime(2024, 7, 31, 18, 30)) == read_moment("2024-07-31T18:30:00")
    zoned = datetime(2024, 7, 31, 18, 30, tzinfo=timezone(timedelta(hours=2)))
    assert read_moment(zoned) == read_moment("2024-07-31T16:30:00")


@given(st.datetimes(), st.sampled_from(["seconds", "microseconds"]))
def test_every_datetime_is_read_and_written_back(moment: datetime, precision: str) -> None:
    text = moment.isoformat(timespec=precision)
    read = read_moment(text)
    assert read.start == (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)
    assert datetime.fromisoformat(write_moment(read.start)) == datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "value",
    ["", "24", "2024-7", "2024-07-31T18", "2024-07-31T18:30:00.1234567", "20240731", "2024-07T10:00", "\uff12024",
     "2024-07-31T18:30:00 ", "2024\n", "-2024", "now", 2024, None, 1.5, b"2024", ["2024"]],
)  # fmt: skip
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(BadQuery, match="expected a time such as 2024"):
        read_moment(value)


@pytest.mark.parametrize("text", ["2023-02-29", "2024-13", "0000", "2024-07-31T24:00", "2024-07-31T10:00+25:00"])
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="does not exist"):
        read_moment(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+01:00", "9999-12-31T23:59-01:00"])
def test_a_zone_may_not_lead_out_of_the_calendar(text: str) -> None:
    with pytest.raises(BadQuery, match="outside the years 1 to 9999"):
        read_moment(text)
