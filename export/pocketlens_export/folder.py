"""One export from start to end: load, trace, measure against the reference, and only then a model folder.

Everything happens in a temporary folder beside the destination, which takes its name when the last check has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.decoders import SERVER
from pocketlens.errors import BadImage, PocketlensError
from pocketlens.files import new_folder, sha256_of, write_file
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import (
    FORMAT,
    GOLDEN,
    MANIFEST,
    PLACEHOLDER_ID,
    VERSION,
    Features,
    FileRecord,
    ModelManifest,
    PictureSpec,
    Source,
    Space,
    TextSpec,
)
from pocketlens.picture import load_pixels, preprocess
from pocketlens_export import golden, graph, parity
from pocketlens_export.architecture import Architecture
from pocketlens_export.clip import Clip, Weights, load_clip
from pocketlens_export.samples import GOLDEN_TEXTS, PROMPTS, sample_pictures
from pocketlens_export.space import space_id
from pocketlens_export.spread import mean_pairwise_cosine, refuse_flat
from pocketlens_export.tokenizer import made_up_ids, prove_tokenizer, text_rules
from pocketlens_export.towers import SeeingTower, features_shape, image_tower, text_tower, trained_features

TEXT_FILE, IMAGE_FILE, TOKENIZER_FILE = "text.onnx", "image.onnx", "tokenizer.json"
_PICTURES = 60  # for the spread of embeddings; a part of them for parity
_FITTED = 12  # of those, how many seeded weights fit their statistics on
_COMPARED = 10  # batches of 1, 2 and 7
_GOLDEN = 4
_PACKAGES = ("pocketlens", "torch", "open_clip_torch", "timm", "onnx", "onnxscript", "onnxruntime")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to export.

    Attributes:
        architecture: what to build.
        weights: where its weights come from.
        name: of the model and of its embedding space.
        licence: of the weights.
        tokenizer: a tokenizer.json to use instead of the model's own.
        pictures: a folder of pictures that parity is also measured on.
    """

    architecture: Architecture
    weights: Weights
    name: str
    licence: str
    tokenizer: Path | None
    pictures: Path | None


@dataclass(slots=True)
class Draft:
    """What has been found out so far of a model folder being made.

    Attributes:
        folder: where its files are written.
        report: called with a line before every step that takes seconds.
        arrays: of golden.npz.
        quality: figures for the manifest.
        features: (channels, height, width) of the image graph's second output, or None where it has none.
    """

    folder: Path
    report: Report
    arrays: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    features: tuple[int, int, int] | None = None


def export_model(request: Request, out: Path, report: Report) -> ModelManifest:
    """Write a model folder, or nothing.

    Args:
        request: what to export.
        out: the folder to make; it must not exist.
        report: called with a line before every step that takes seconds.

    Raises:
        PocketlensError: the model cannot be had, built, traced or expressed.
        Refused: the exported graphs do not agree with the reference.
    """
    with new_folder(out) as folder:
        draft = Draft(folder, report)
        image = picture_spec(request.architecture)
        pixels = np.stack([preprocess(picture, image) for picture in sample_pictures(_PICTURES)])
        report(f"loading {request.architecture.name}")
        clip = load_clip(request.architecture, request.weights, pixels[:_FITTED])
        dim = export_image(clip, image, pixels, request.pictures, draft)
        text = _export_text(clip, request.tokenizer, draft)
        golden.write_golden(folder / GOLDEN, draft.arrays)
        id = space_id(request.name, clip.model.visual, clip.preprocessing)
        manifest = ModelManifest(
            name=request.name,
            licence=request.licence,
            source=Source(clip.architecture.name, clip.source),
            space=Space(id, dim),
            text=text,
            image=replace(image, features=None if draft.features is None else Features(id, *draft.features)),
            inversion={},
            concepts=None,
            quality=draft.quality,
            quantization=None,
            made_with=_versions(clip),
            files={path.name: FileRecord(sha256_of(path), path.stat().st_size) for path in sorted(folder.iterdir())},
        )
        write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
        report("replaying the finished folder through the runtime")
        verify(folder)
    return manifest


def export_image(clip: Clip, spec: PictureSpec, pixels: Uint8s, pictures: Path | None, draft: Draft) -> int:
    """Write the image tower, measure it, and return the dimension of its embeddings.

    Args:
        clip: the reference.
        spec: what model.json says of the tower.
        pixels: uint8 (n, side, side, 3), different pictures that it is measured on.
        pictures: a folder of more, or None.
        draft: gets the file, the golden values and the figures.

    Raises:
        Refused: the embeddings of different pictures are alike, or the graph does not agree with the reference.
    """
    draft.report(f"encoding {len(pixels)} pictures with the reference")
    embeddings = clip.encode_pixels(pixels)
    spread = mean_pairwise_cosine(embeddings)
    refuse_flat(f"{len(pixels)} different pictures", spread)
    compared, expected = _with_own(pictures, spec, clip, pixels[:_COMPARED], embeddings[:_COMPARED])
    tower = image_tower(clip)
    fused = parity.check_reparameterization(tower, compared, expected)
    draft.report("exporting the image tower")
    path = draft.folder / spec.file
    draft.features = features_shape(tower, spec.side)
    traced = tower if draft.features is None else SeeingTower(tower)
    graph.write_image_graph(traced, path, side=spec.side, features=draft.features is not None)
    measured = parity.check_image(path, compared, expected)
    draft.arrays |= golden.image_arrays(pixels[:_GOLDEN], embeddings[:_GOLDEN])
    draft.quality |= {
        "mean_pairwise_cosine": spread,
        "reparameterization_max_abs": fused.max_abs,
        "parity_image_min_cosine": measured.min_cosine,
        "parity_image_max_abs": measured.max_abs,
    }
    if draft.features is not None:
        features = parity.check_features(path, compared, trained_features(clip, compared))
        draft.quality |= {
            "parity_features_min_cosine": features.min_cosine, "parity_features_max_abs": features.max_abs,
        }  # fmt: skip
    return int(embeddings.shape[1])


def _export_text(clip: Clip, tokenizer: Path | None, draft: Draft) -> TextSpec:
    """Write text.onnx and tokenizer.json, measure them, and return their spec."""
    tower = text_tower(clip)
    rules = text_rules(clip, tower, tokenizer)
    spec = TextSpec(
        file=TEXT_FILE,
        precision="float32",
        opset=graph.OPSET,
        clean=rules.clean,
        context_length=clip.text_cfg.context_length,
        pad_id=rules.pad_id,
        end_id=rules.end_id,
        pooling=tower.pooling,
        trim=tower.trim,
        placeholder_id=PLACEHOLDER_ID,
        token_dim=tower.embedding.embedding_dim,
        tokenizer=TOKENIZER_FILE if rules.tokenizer_json is not None else None,
    )
    texts: tuple[str, ...] = ()
    if rules.tokenizer_json is not None and rules.reference is not None:
        texts = GOLDEN_TEXTS
        write_file(draft.folder / TOKENIZER_FILE, rules.tokenizer_json.encode())
        prove_tokenizer(draft.folder / TOKENIZER_FILE, spec, rules.reference, [*GOLDEN_TEXTS, *PROMPTS])
        ids = rules.reference([*GOLDEN_TEXTS, *PROMPTS])
    else:
        draft.report(f"no tokenizer: {rules.missing}; texts will be refused. Give --tokenizer FILE to take them")
        ids = made_up_ids(rules, tower, spec.context_length, count=len(GOLDEN_TEXTS) + len(PROMPTS))
    draft.report("exporting the text tower")
    graph.write_text_graph(
        tower, draft.folder / spec.file, length=spec.context_length, dynamic_length=spec.trim, token_dim=spec.token_dim
    )
    _measure_text(clip, spec, texts, ids, draft)
    return spec


def _measure_text(clip: Clip, spec: TextSpec, texts: tuple[str, ...], ids: Int64s, draft: Draft) -> None:
    draft.report("comparing the text tower with the reference")
    tower, embeddings = text_tower(clip), clip.encode_ids(ids)
    spread = mean_pairwise_cosine(embeddings)
    refuse_flat(f"{len(ids)} different texts", spread)
    trimming = parity.check_trimming(tower, ids, pad_id=spec.pad_id)
    measured = parity.check_text(draft.folder / spec.file, clip, tower, ids, pad_id=spec.pad_id)
    shown = len(GOLDEN_TEXTS)
    draft.arrays |= golden.text_arrays(texts, ids[:shown], embeddings[:shown])
    draft.quality |= {
        "mean_pairwise_cosine_text": spread,
        "trim_max_abs": trimming,
        "parity_text_min_cosine": measured.min_cosine,
        "parity_text_max_abs": measured.max_abs,
    }


def picture_spec(architecture: Architecture) -> PictureSpec:
    """Return what model.json says of an architecture's image tower."""
    preprocessing = architecture.preprocessing
    return PictureSpec(
        file=IMAGE_FILE,
        precision="float32",
        opset=graph.OPSET,
        side=preprocessing.side,
        mode=preprocessing.mode,
        interpolation=preprocessing.interpolation,
        features=None,
    )


def _with_own(
    folder: Path | None, spec: PictureSpec, clip: Clip, pixels: Uint8s, expected: Float32s
) -> tuple[Uint8s, Float32s]:
    """Return generated pictures and those of a folder, with their reference embeddings."""
    if folder is None:
        return pixels, expected
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            found.append(load_pixels(path, spec, limits=SERVER))
        except BadImage:
            continue
        if len(found) == _COMPARED:
            break
    if not found:
        raise PocketlensError(f"{folder} holds no readable picture, expected files of {', '.join(SERVER.formats)}")
    own = np.stack(found)
    return np.concatenate([pixels, own]), np.concatenate([expected, clip.encode_pixels(own)])


def _versions(clip: Clip) -> dict[str, str]:
    uses_transformers = clip.text_cfg.hf_model_name is not None
    return {name: version(name) for name in (*_PACKAGES, *(["transformers"] if uses_transformers else []))}
