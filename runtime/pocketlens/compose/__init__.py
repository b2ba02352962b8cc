"""Composed queries: a picture plus a text, minus what is not wanted.

Each method is one idea with its paper; see `method` for what one is, `registry` for all of them, and
docs/composition.md for the formulas side by side.
"""

from pocketlens.compose.choice import REMAKE, choose, missing
from pocketlens.compose.method import Composed, FeatureMap, Kit, Method, Parameter, Query, Scores, Text
from pocketlens.compose.negative import Negative
from pocketlens.compose.registry import METHODS, compose, find_method
from pocketlens.compose.values import check_values

__all__ = [
    "METHODS",
    "REMAKE",
    "Composed",
    "FeatureMap",
    "Kit",
    "Method",
    "Negative",
    "Parameter",
    "Query",
    "Scores",
    "Text",
    "check_values",
    "choose",
    "compose",
    "find_method",
    "missing",
]
