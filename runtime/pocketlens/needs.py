"""What methods need, held against what the manifests of a bundle's towers say. Nothing is opened."""

from __future__ import annotations

from pocketlens.compose import Method, missing
from pocketlens.compose.inversion import OF_FEATURES
from pocketlens.model import ModelManifest


def has_need(text: ModelManifest | None, image: ModelManifest | None, need: str) -> bool:
    """Return whether a bundle has what a method needs: "concepts" or "inversion/<recipe>".

    Args:
        text: manifest of the text tower's folder, or None without one.
        image: manifest of the image tower's folder, or None without one.
        need: one of `Method.needs` that is no part of the query.
    """
    if text is None or not text.can_read:
        return False
    if need == "concepts":
        return text.concepts is not None
    recipe = need.removeprefix("inversion/")
    network = text.inversion.get(recipe)
    if network is None or (network.input == "features") != (recipe in OF_FEATURES):
        return False
    return foreign_features(text, image, recipe) is None


def foreign_features(text: ModelManifest, image: ModelManifest | None, recipe: str) -> str | None:
    """Return in one line why a network of features cannot be used with an image tower, or None where it can.

    Without an image tower, or without such a network, there is nothing to say.
    """
    network = text.inversion.get(recipe)
    if network is None or network.input != "features" or image is None or image.image is None:
        return None
    features = image.image.features
    if features is not None and features.id == network.features_id:
        return None
    given = "none" if features is None else f"those of {features.id}"
    return f"the inversion network {recipe} takes features of {network.features_id}, and the image tower gives {given}"


def lacking(method: Method, text: ModelManifest | None, image: ModelManifest | None) -> list[str]:
    """Return what a bundle lacks for a method, as `compose.missing`, and why a network that is there does not fit."""
    found = missing(method, lambda need: has_need(text, image, need))
    reasons = [] if text is None else [foreign_features(text, image, recipe) for recipe in _recipes(method)]
    return [*found, *filter(None, reasons)]


def gives_others(method: Method, text: ModelManifest | None, image: ModelManifest | None) -> bool:
    """Return whether the method's network is there, and the image tower gives features of another one than it takes."""
    if text is None or image is None or image.image is None or image.image.features is None:
        return False
    return any(foreign_features(text, image, recipe) is not None for recipe in _recipes(method))


def measured_figures(manifest: ModelManifest | None) -> dict[str, float]:
    """Return the mAP@10 of each method by name, as model.json's `composed_<method>_map_at_10` says.

    Where the folder was quantized and not measured again, the figure of the float32 folder stands.
    """
    if manifest is None:
        return {}
    start, end = "composed_", "_map_at_10"
    found: dict[str, float] = {}
    for prefix in (f"float_{start}", start):
        for name, value in manifest.quality.items():
            if name.startswith(prefix) and name.endswith(end):
                found[name.removeprefix(prefix).removesuffix(end).replace("_", "-")] = value
    return found


def _recipes(method: Method) -> list[str]:
    return [need.removeprefix("inversion/") for need in method.needs if need.startswith("inversion/")]
