"""The part of docs/composition.md that lists every composition method, from the methods themselves."""

from __future__ import annotations

from collections.abc import Mapping

from pocketlens.compose import METHODS, Method, Parameter
from pocketlens.compose.negative import PARAMETERS as NEGATIVE

MARKER = "methods"
_NEEDS = {"concepts": "a vocabulary", "image": "a picture", "features": "its features", "text": "a text"}


def methods_text() -> str:
    """Return a paragraph per method, in the registry's order, and one of the parameters of what is not wanted."""
    paragraphs = [_paragraph(method) for method in METHODS.values()]
    paragraphs.append(f"Every method besides: {_parameters(NEGATIVE)}.")
    return "\n" + "\n\n".join(paragraphs) + "\n\n"


def _paragraph(method: Method) -> str:
    needs = ", ".join(_NEEDS.get(need, f"`{need}.onnx`") for need in method.needs)
    passes = f"{method.text_passes} text {'pass' if method.text_passes == 1 else 'passes'}"
    own = {name: parameter for name, parameter in method.parameters.items() if name not in NEGATIVE}
    lines = [
        f"**{method.name}**: {method.about}.",
        f"`{method.formula}`",
        f"({method.source}). Needs {needs}; {passes}.",
        *([f"Parameters: {_parameters(own)}."] if own else []),
    ]
    return "\n".join(lines)


def _parameters(parameters: Mapping[str, Parameter]) -> str:
    return "; ".join(_parameter(name, parameter) for name, parameter in parameters.items())


def _parameter(name: str, parameter: Parameter) -> str:
    if parameter.choices:
        return f"`{name}` = {parameter.default} (of {', '.join(parameter.choices)}), {parameter.about}"
    return f"`{name}` = {float(parameter.default):g} ({parameter.least:g} to {parameter.most:g}), {parameter.about}"
