"""One folder of two models of a space: the text tower of one, the image tower of the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens.files import read_arrays
from pocketlens.model import GOLDEN, Model, ModelManifest, Source
from pocketlens_export.golden import write_golden

_TEXT = ("text_ids", "text_embedding", "text_min_cosine", "text_max_abs")
_READ = ("text_utf8", "text_offsets")  # where there is a tokenizer
_IMAGE = ("pixels", "image_embedding", "image_min_cosine", "image_max_abs")


_OF = {
    "text": ("text_", "parity_text_", "inversion_", "concepts_"),
    "image": ("image_", "parity_image_", "asymmetric_"),
}  # what figures of a tower begin with


def join_towers(text: Model, image: Model, folder: Path) -> ModelManifest:
    """Copy the text tower of one model, with its networks and names, and the image tower of another into a folder.

    Figures that are of a tower by their name come from that tower's model; what else was measured of either model as a
    whole is left behind, for this is another one.

    Args:
        text: an opened model folder with a text tower.
        image: an opened model folder of the same space with an image tower.
        folder: to copy to.

    Returns:
        The manifest, whose files are not yet recorded.

    Raises:
        FormatError: both models have a file of one name.
    """
    words, sight = text.manifest.only("text"), image.manifest.only("image")
    assert words.text is not None
    if sight.image is not None and sight.image.file in words.files:
        raise FormatError(f"{text.path} and {image.path} both have a file {sight.image.file}; expected different names")
    for source, part in ((text, words), (image, sight)):
        for name in set(part.files) - {GOLDEN}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.file(name).read_bytes())
    names = [*_TEXT, *(_READ if words.can_read else ())]
    write_golden(folder / GOLDEN, read_arrays(text.file(GOLDEN), names) | read_arrays(image.file(GOLDEN), _IMAGE))
    return replace(
        words,
        name=f"{sight.name}-with-{words.name}",
        licence=_joined(words.licence, sight.licence),
        source=Source(
            _joined(words.source.architecture, sight.source.architecture),
            _joined(words.source.weights, sight.source.weights),
        ),
        image=sight.image,
        quality=_figures(words, "text") | _figures(sight, "image"),
        quantization=sight.quantization,
        made_with=sight.made_with | words.made_with,
    )


def _joined(text: str, image: str) -> str:
    return text if text == image else f"text: {text}; image: {image}"


def _figures(manifest: ModelManifest, tower: str) -> dict[str, float]:
    return {key: value for key, value in manifest.quality.items() if key.removeprefix("float_").startswith(_OF[tower])}
