"""The model that ships: its size, pictures of every kind reach it unharmed, and batches and padding do not matter."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import ExifTags, Image

from pocketlens import ImageEncoder, Model, TextEncoder, find_model

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "demo" / "pictures" / "city" / "courtyard-panorama.jpg"
TEXTS = {  # the least cosine between a text's embeddings alone, in a batch and padded
    "a dog": 0.9999,
    "a red bicycle in front of an old brick house on a rainy day": 0.9999,
    "": 0.9999,
    "ÉCLAIR & café": 0.9999,
    "🚲": 0.9999,  # unknown to MiniLM
}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open(find_model("lens-base"))


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _kinds() -> dict[str, tuple[bytes, Image.Image]]:
    """Pictures as files, each with the upright RGB picture on white that is meant."""
    photo = Image.open(PHOTO).convert("RGB")
    square, portrait = photo.crop((0, 0, photo.height, photo.height)), photo.transpose(Image.Transpose.ROTATE_90)
    grey, strip = photo.convert("L"), photo.crop((40, 0, 41, photo.height))
    alpha = Image.linear_gradient("L").resize(photo.size)
    clear = photo.copy()
    clear.putalpha(alpha)
    white = Image.composite(photo, Image.new("RGB", photo.size, "white"), alpha)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    cmyk = _saved(photo.convert("CMYK"), "JPEG", quality=100)
    return {
        "landscape": (_saved(photo, "PNG"), photo),
        "portrait": (_saved(portrait, "PNG"), portrait),
        "square": (_saved(square, "PNG"), square),
        "1-pixel-wide": (_saved(strip, "PNG"), strip),
        "grey": (_saved(grey, "PNG"), grey.convert("RGB")),
        "CMYK": (cmyk, Image.open(io.BytesIO(cmyk)).convert("RGB")),
        "alpha": (_saved(clear, "PNG"), white),
        "EXIF": (_saved(photo, "PNG", exif=exif), photo.transpose(Image.Transpose.ROTATE_270)),
    }


def test_every_kind_of_picture_gets_the_embedding_of_open_clips_transform(model: Model) -> None:
    encoder = ImageEncoder(model)
    transform = open_clip.transform.image_transform(
        encoder.spec.side,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=encoder.spec.mode,
        interpolation=encoder.spec.interpolation,
    )
    for kind, (file, meant) in _kinds().items():
        pixels = np.rint(transform(meant).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        cosine = float(encoder.encode([file])[0] @ encoder.encode_pixels(pixels[np.newaxis])[0])
        assert cosine >= 0.9999, kind


def test_a_text_has_one_embedding_alone_in_a_batch_padded_and_trimmed(model: Model) -> None:
    encoder = TextEncoder(model)
    together = encoder.encode(list(TEXTS))
    for (text, least), in_batch in zip(TEXTS.items(), together, strict=True):
        ids = np.array(encoder.tokenizer.ids([text]))
        padded = np.full((1, encoder.spec.context_length), encoder.spec.pad_id)
        padded[:, : ids.shape[1]] = ids
        alone = encoder.encode([text])[0]
        assert alone @ in_batch >= least, text
        assert alone @ encoder.encode_ids(padded)[0] >= least, text


def test_an_empty_text_and_a_picture_have_unit_embeddings(model: Model) -> None:
    vectors = [TextEncoder(model).encode([""])[0], ImageEncoder(model).encode([PHOTO])[0]]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_the_towers_fit_in_32_megabytes_together(model: Model) -> None:
    sizes = {name: record.size_bytes for name, record in model.manifest.files.items()}
    assert sizes["text.onnx"] + sizes["image.onnx"] <= 32_000_000
