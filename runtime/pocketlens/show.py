"""What the command line prints of hits and methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # printing --help loads no arrays
    from pocketlens.compose.method import Method, Parameter
    from pocketlens.hits import Hits

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """Return a text from outside with its control characters escaped, so that it stays on its line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def hits_table(hits: Hits) -> list[str]:
    """Return hits as lines with a heading; with the score where it is not the cosine."""
    scored = any(hit.score != hit.cosine for hit in hits)
    lines = [f"rank{'      score' if scored else ''}  cosine      z  margin  picture"]
    for rank, hit in enumerate(hits, start=1):
        score = f"  {hit.score:9.3g}" if scored else ""
        lines.append(f"{rank:4}{score}  {hit.cosine:6.3f}  {hit.z:5.2f}  {hit.margin:6.3f}  {printable(hit.id)}")
    return lines


def hits_heading(hits: Hits) -> list[str]:
    """Return lines that say how the query was composed."""
    names = ", ".join(f"{printable(name)} {weight:.2f}" for name, weight in hits.names)
    return [f"method: {hits.method} ({hits.why})", *([f"taken for: {names}"] if names else [])]


def hits_values(hits: Hits) -> dict[str, Any]:
    """Return hits as plain JSON values, without times and absolute paths."""
    rounded = [
        {
            "id": hit.id,
            "uri": hit.uri,
            "score": float(f"{hit.score:.5g}"),
            "cosine": round(hit.cosine, 4),
            "z": round(hit.z, 2),
            "margin": round(hit.margin, 4),
            "attributes": hit.attributes,
        }
        for hit in hits
    ]
    names = [{"name": name, "weight": round(weight, 4)} for name, weight in hits.names]
    return {"method": hits.method, "why": hits.why, "parameters": hits.parameters, "names": names, "hits": rounded}


def methods_values(
    methods: Mapping[str, Method], missing: Callable[[Method], list[str]] | None, figures: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return methods as plain JSON values.

    Args:
        methods: by name.
        missing: what a bundle lacks for a method; None when there is no bundle to ask.
        figures: mAP@10 by method's name.
    """
    found = []
    for name, method in methods.items():
        parameters = {key: _parameter_values(parameter) for key, parameter in method.parameters.items()}
        values: dict[str, Any] = {
            "name": name, "about": method.about, "formula": method.formula, "source": method.source,
            "text_passes": method.text_passes, "needs": list(method.needs), "parameters": parameters,
        }  # fmt: skip
        if missing is not None:
            values |= {"missing": missing(method), "map_at_10": figures.get(name)}
        found.append(values)
    return found


def methods_table(values: list[dict[str, Any]]) -> list[str]:
    """Return what `methods_values` returns as lines with a heading."""
    in_bundle = "missing" in values[0]
    heading = ["method", "text passes", "needs", *(["usable", "mAP@10"] if in_bundle else []), "what it does"]
    rows = [heading]
    for value in values:
        figure = value.get("map_at_10")
        bundle = ["no" if value.get("missing") else "yes", "-" if figure is None else f"{figure:.3f}"]
        needs = ", ".join(value["needs"])
        rows.append([value["name"], str(value["text_passes"]), needs, *(bundle if in_bundle else []), value["about"]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading) - 1)]
    return [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def method_lines(value: dict[str, Any]) -> list[str]:
    """Return one of what `methods_values` returns as lines: formula, source, parameters."""
    lines = [f"{value['name']}: {value['about']}", f"  formula      {value['formula']}"]
    lines += [f"  source       {value['source']}", f"  needs        {', '.join(value['needs'])}"]
    lines += [f"  text passes  {value['text_passes']}"]
    if "missing" in value:
        figure = value["map_at_10"]
        lines += [f"  missing      {'; '.join(value['missing']) or 'nothing'}"]
        lines += [f"  mAP@10       {'not measured' if figure is None else f'{figure:.3f}'}"]
    lines += ["  parameters"]
    for name, parameter in value["parameters"].items():
        found = parameter["choices"] or [f"{parameter['least']:g} to {parameter['most']:g}"]
        default = parameter["default"] if parameter["choices"] else f"{parameter['default']:g}"
        lines.append(f"    {name} = {default} ({', '.join(found)}): {parameter['about']}")
    return lines


def _parameter_values(parameter: Parameter) -> dict[str, Any]:
    values: dict[str, Any] = {
        "default": parameter.default,
        "about": parameter.about,
        "choices": list(parameter.choices),
    }
    return values if parameter.choices else {**values, "least": parameter.least, "most": parameter.most}
