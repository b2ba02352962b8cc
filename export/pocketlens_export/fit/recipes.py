"""All recipes by name, and what makes the task of each."""

from __future__ import annotations

from collections.abc import Callable

from pocketlens_export.fit.lincir import LINCIR, LinCir
from pocketlens_export.fit.pic2word import PIC2WORD, Pic2Word
from pocketlens_export.fit.recipe import Recipe, Setup
from pocketlens_export.fit.searle import SEARLE, Searle

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (LINCIR, PIC2WORD, SEARLE)}

TASKS: dict[str, Callable[[Setup], LinCir | Pic2Word | Searle]] = {
    "lincir": LinCir,
    "pic2word": Pic2Word,
    "searle": Searle,
}
