"""Answers: the pictures that were found, and how their order came about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pocketlens.compose.method import Value


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer.

    Attributes:
        id: the item's id in the gallery.
        uri: where the picture can be found, relative to the indexed folder.
        score: what hits are ranked by; higher is nearer. The cosine, unless the method fuses several scores: then
            what it made of them, which compares within one answer only.
        cosine: similarity of query and picture, -1 to 1; higher is nearer. The mean over the query's wanted vectors
            where the method fuses their scores.
        z: standard deviations above this query's mean over the gallery; the mean over the vectors likewise.
        margin: its cosine less the mean cosine of the pictures ranked second to fiftieth: how far it stands out from
            the next best. 0 where it is the only picture.
        width, height: of the upright picture, in pixels.
        attributes: what else is known of it: JSON values by name.
    """

    id: str
    uri: str
    score: float
    cosine: float
    z: float
    margin: float
    width: int
    height: int
    attributes: dict[str, Any]


class Hits(list[Hit]):
    """The hits of a search, best first, and how the query was composed.

    Attributes:
        method: the method's name.
        parameters: the values of its parameters; empty for a query of one part.
        names: what the picture was taken for, with weights, where the method names it.
        why: why this method, in one line.
    """

    def __init__(
        self,
        hits: Iterable[Hit],
        *,
        method: str,
        why: str,
        parameters: Mapping[str, Value] | None = None,
        names: tuple[tuple[str, float], ...] = (),
    ) -> None:
        super().__init__(hits)
        self.method = method
        self.parameters = dict(parameters or {})
        self.names = names
        self.why = why
