"""Times as text: "2024", "2024-07", "2024-07-31", "2024-07-31T18:30" or with seconds, a fraction and a zone.

What is written coarsely stands for all of that span. A camera knows no zone, so a time without one is taken as it is
written; one with a zone is turned into UTC.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pocketlens.errors import BadQuery

EXPECTED = "a time such as 2024, 2024-07, 2024-07-31 or 2024-07-31T18:30:00"
_FORM = re.compile(
    r"(?P<year>[0-9]{4})(-(?P<month>[0-9]{2})(-(?P<day>[0-9]{2})([T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(:(?P<second>[0-9]{2})(\.(?P<fraction>[0-9]{1,6}))?)?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
)
_SECOND = 1_000_000  # microseconds
_MINUTE, _DAY = 60 * _SECOND, 86_400 * _SECOND
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST, _LAST = (date.min.toordinal() - _EPOCH) * _DAY, (date.max.toordinal() + 1 - _EPOCH) * _DAY - 1


@dataclass(frozen=True, slots=True)
class Moment:
    """A span of time, in microseconds since 1970: from `start` on, before `stop`."""

    start: int
    stop: int


def read_moment(value: object) -> Moment:
    """Return the span that a text, a `datetime` (one microsecond) or a `date` (one day) stands for.

    Raises:
        BadQuery: it is none of these, or no such time exists; the message does not say of what.
    """
    if isinstance(value, datetime):
        return read_moment(value.isoformat())
    if isinstance(value, date):
        return read_moment(value.isoformat())
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadQuery(f"{value!r}, expected {EXPECTED}")
    try:
        moment = _span(found)
    except ValueError as error:
        raise BadQuery(f"{value!r}, which does not exist ({error}); expected {EXPECTED}") from error
    if not _FIRST <= moment.start <= _LAST:
        raise BadQuery(f"{value!r}, which UTC puts outside the years 1 to 9999")
    return moment


def write_moment(start: int) -> str:
    """Return a start in full: "2024-07-31T18:30:00", with a fraction where there is one."""
    return (datetime(1970, 1, 1) + timedelta(microseconds=start)).isoformat()


def _span(found: re.Match[str]) -> Moment:
    year, month, day, hour, minute, second = (
        int(found[name] or least)
        for name, least in (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    )
    whole = datetime(year, month, day, hour, minute, second)  # raises ValueError
    start = (whole.toordinal() - _EPOCH) * _DAY + (hour * 60 + minute) * _MINUTE + second * _SECOND
    if found["month"] is None:
        return Moment(start, start + (366 if monthrange(year, 2)[1] == 29 else 365) * _DAY)
    if found["day"] is None:
        return Moment(start, start + monthrange(year, month)[1] * _DAY)
    start -= _offset(found["zone"])
    if found["hour"] is None:
        return Moment(start, start + _DAY)
    if found["second"] is None:
        return Moment(start, start + _MINUTE)
    if found["fraction"] is None:
        return Moment(start, start + _SECOND)
    start += int(found["fraction"].ljust(6, "0"))
    return Moment(start, start + 1)


def _offset(zone: str | None) -> int:
    if zone in (None, "Z"):
        return 0
    assert zone is not None
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(f"no zone is {zone}")
    return (-1 if zone[0] == "-" else 1) * (hours * 60 + minutes) * _MINUTE
