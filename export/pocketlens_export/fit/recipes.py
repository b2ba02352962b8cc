"""All recipes by name."""

from __future__ import annotations

from pocketlens_export.fit.lincir import LINCIR
from pocketlens_export.fit.pic2word import PIC2WORD
from pocketlens_export.fit.recipe import Recipe
from pocketlens_export.fit.searle import SEARLE

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (LINCIR, PIC2WORD, SEARLE)}
