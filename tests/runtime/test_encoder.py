from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from pocketlens.encoder import ImageEncoder, TextEncoder, TextGraph
from pocketlens.errors import BadImage, BadQuery, CorruptFile, FormatError, MissingPart
from pocketlens.graph import default_threads
from pocketlens.model import Features, Model
from tests.colours import SIDE, TOKENS, expected_features, expected_picture, expected_text
from tests.folders import reshape, rewrite

TEXTS = ["red", "a green", "", "blue white red", "a a a a", "mauve", "white"]


@pytest.fixture
def own(colours: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(colours, tmp_path / "own"))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_texts_are_encoded_as_numpy_says(colours: Path, count: int) -> None:
    found = TextEncoder(Model.open(colours)).encode(TEXTS[:count])
    assert found.shape == (count, 4)
    assert found.dtype == np.float32
    rows = [[2, 4, 3], [2, 8, 5, 3], [2, 3], [2, 6, 7, 4, 3], [2, 8, 8, 8, 8, 3], [2, 1, 3], [2, 7, 3]]
    for embedding, ids in zip(found, rows, strict=False):
        np.testing.assert_allclose(embedding, expected_text(np.array([ids]))[0], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_pictures_are_encoded_as_numpy_says(colours: Path, rng: np.random.Generator, count: int) -> None:
    encoder = ImageEncoder(Model.open(colours))
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    found = encoder.encode([Image.fromarray(picture) for picture in pixels])
    assert found.shape == (count, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_picture(pixels).reshape(count, 4), atol=1e-6)
    if count:
        np.testing.assert_array_equal(found, encoder.encode_pixels(pixels))


def test_a_row_is_as_long_as_the_longest_text_where_trimming_is_exact(colours: Path) -> None:
    encoder = TextEncoder(Model.open(colours))
    assert encoder.pad([[2, 4, 3], [2, 3]]).tolist() == [[2, 4, 3], [2, 3, 0]]
    assert encoder.pad([]).shape == (0, 1)
    assert encoder.pad([[2, 3]]).dtype == np.int64


def test_a_row_is_as_long_as_the_context_where_trimming_is_not_exact(own: Path) -> None:
    manifest = Model.open(own).manifest
    assert manifest.text is not None
    model = rewrite(own, replace(manifest, text=replace(manifest.text, trim=False, pad_id=8)))
    encoder = TextEncoder(model)
    assert encoder.pad([[2, 4, 3]]).tolist() == [[2, 4, 3, 8, 8, 8]]
    assert encoder.pad([]).shape == (0, 6)
    np.testing.assert_allclose(encoder.encode(["red"]), expected_text(np.array([[2, 4, 3, 8, 8, 8]])), atol=1e-6)


def test_the_longest_row_sets_the_length_of_a_batch_but_not_the_answers(colours: Path) -> None:
    encoder = TextEncoder(Model.open(colours))
    batch = encoder.encode(TEXTS)
    for text, embedding in zip(TEXTS, batch, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], embedding, atol=1e-6)


def test_a_pseudo_token_equal_to_a_tokens_row_stands_for_it(colours: Path) -> None:
    encoder = TextEncoder(Model.open(colours))
    plain = encoder.encode_ids(np.array([[2, 4, 5, 3]]))
    spliced = encoder.encode_ids(np.array([[2, -1, 5, 3]]), TOKENS[[[4]]])
    np.testing.assert_allclose(spliced, plain, atol=1e-6)
    assert encoder.encode_ids(np.zeros((0, 3), dtype=np.int64)).shape == (0, 4)


@pytest.mark.parametrize("texts", ["red", ""])
def test_a_single_text_is_not_taken_letter_by_letter(colours: Path, texts: str) -> None:
    with pytest.raises(BadQuery, match="encode takes a list, found a single str"):
        TextEncoder(Model.open(colours)).encode(texts)


def test_a_single_picture_is_not_taken_for_several(colours: Path, pictures: Path) -> None:
    encoder = ImageEncoder(Model.open(colours))
    path = pictures / "red.png"
    with Image.open(path) as image:
        for single in (path, str(path), path.read_bytes(), image):
            with pytest.raises(BadQuery, match="encode takes a list, found a single"):
                encoder.encode(single)  # type: ignore[arg-type]


def test_one_unreadable_picture_is_named(colours: Path, pictures: Path) -> None:
    with pytest.raises(BadImage, match=r"broken\.jpg: cannot be read as a picture"):
        ImageEncoder(Model.open(colours)).encode([pictures / "red.png", pictures / "broken.jpg"])


@pytest.mark.parametrize("threads", [1, 3, None])
def test_sessions_are_those_of_a_small_device(colours: Path, threads: int | None) -> None:
    model = Model.open(colours)
    for graph in (TextGraph(model, threads=threads)._graph, ImageEncoder(model, threads=threads)._graph):
        options = graph.session.get_session_options()
        assert options.intra_op_num_threads == (threads or default_threads())
        assert not options.enable_cpu_mem_arena
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert graph.session.get_providers() == ["CPUExecutionProvider"]
    assert 1 <= default_threads() <= 4


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True])
def test_a_number_of_threads_that_is_none_is_a_bad_query(colours: Path, threads: Any) -> None:
    with pytest.raises(BadQuery, match=f"threads is {threads!r}, expected an integer from 1 on"):
        TextEncoder(Model.open(colours), threads=threads)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x09" * 500])
@pytest.mark.parametrize(("name", "kind"), [("text.onnx", TextEncoder), ("image.onnx", ImageEncoder)])
def test_a_graph_that_is_none_but_has_the_right_hash_is_a_format_error(
    own: Path, name: str, kind: type[TextEncoder] | type[ImageEncoder], content: bytes
) -> None:
    (own / name).write_bytes(content)
    with pytest.raises(FormatError) as caught:
        kind(rewrite(own, Model.open(own).manifest))
    assert str(caught.value).startswith(f"{own / name} is no ONNX graph that onnxruntime ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("renamed", ["input", "output"])
def test_a_graph_with_other_names_is_a_format_error(own: Path, renamed: str) -> None:
    graph = onnx.load(str(own / "image.onnx"))
    old, new = ("pixels", "x") if renamed == "input" else ("embedding", "y")
    for value in [*graph.graph.input, *graph.graph.output]:
        value.name = new if value.name == old else value.name
    for node in graph.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    onnx.save(graph, str(own / "image.onnx"))
    with pytest.raises(FormatError, match=r"image\.onnx maps .* expected \('pixels',\) to an output 'embedding'"):
        ImageEncoder(rewrite(own, Model.open(own).manifest))


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        ("input_ids", ["n", 6], r"input_ids has shape \(n, 6\), expected \(any, any\)"),
        ("input_ids", [2, "l"], r"input_ids has shape \(2, l\), expected \(any, any\)"),
        ("input_ids", ["n", "l", "m"], r"input_ids has shape \(n, l, m\), expected \(any, any\)"),
    ],
)
def test_a_graph_whose_shapes_contradict_the_manifest_is_a_format_error(
    own: Path, value: str, shape: list[str | int], message: str
) -> None:
    reshape(own / "text.onnx", value, shape)
    with pytest.raises(FormatError, match=rf"text\.onnx: {message}"):
        TextEncoder(rewrite(own, Model.open(own).manifest))


def test_a_graph_of_fixed_length_fits_a_tower_that_is_not_trimmed(own: Path) -> None:
    reshape(own / "text.onnx", "input_ids", ["n", 6])
    manifest = Model.open(own).manifest
    assert manifest.text is not None
    spec = replace(manifest.text, trim=False)
    assert TextEncoder(rewrite(own, replace(manifest, text=spec))).encode(["red"]).shape == (1, 4)
    longer = rewrite(own, replace(manifest, text=replace(spec, context_length=7)))
    with pytest.raises(FormatError, match=r"input_ids has shape \(n, 6\), expected \(any, 7\)"):
        TextEncoder(longer)


def test_what_onnxruntime_refuses_is_a_format_error(colours: Path) -> None:
    pixels = np.zeros((1, SIDE + 1, SIDE, 3), dtype=np.uint8)
    with pytest.raises(FormatError, match=r"image\.onnx fails on pixels uint8 \(1, 9, 8, 3\): ") as caught:
        ImageEncoder(Model.open(colours)).encode_pixels(pixels)
    assert "\n" not in str(caught.value)
    with pytest.raises(FormatError, match=r"text\.onnx fails on input_ids int64 \(1, 1\), pseudo_tokens"):
        TextEncoder(Model.open(colours)).encode_ids(np.array([[99]]))  # a token that the tower does not have


def test_an_embedding_of_another_width_than_the_space_is_a_format_error(own: Path) -> None:
    manifest = Model.open(own).manifest
    wider = rewrite(own, replace(manifest, space=replace(manifest.space, dim=5)))
    with pytest.raises(FormatError, match=r"image\.onnx: embedding has shape \(n, 4\), expected \(any, 5\)"):
        ImageEncoder(wider)
    encoder = ImageEncoder(rewrite(own, manifest))
    encoder._graph._outputs = {"embedding": (None, 5)}  # as if the graph had declared no width
    with pytest.raises(FormatError, match=r"image\.onnx gives embedding of \(1, 4\), expected \(1, 5\)"):
        encoder.encode_pixels(np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8))


def test_features_come_with_the_embeddings_of_the_same_run(colours: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    encoder = ImageEncoder(Model.open(colours))
    embeddings, features = encoder.encode_features(pixels)
    np.testing.assert_array_equal(embeddings, encoder.encode_pixels(pixels))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected_features(pixels), atol=1e-6)


def test_whoever_wants_the_embedding_is_given_nothing_else(colours: Path) -> None:
    encoder = ImageEncoder(Model.open(colours))
    asked: list[list[str]] = []
    session = encoder._graph.session

    class Noting:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> Any:
            asked.append(outputs)
            return session.run(outputs, feeds)

    encoder._graph.session = Noting()
    pixels = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    encoder.encode_pixels(pixels)
    encoder.encode_features(pixels)
    assert asked == [["embedding"], ["embedding", "features"]]


def test_a_tower_without_features_says_so(own: Path) -> None:
    manifest = Model.open(own).manifest
    assert manifest.image is not None
    without = rewrite(own, replace(manifest, image=replace(manifest.image, features=None)))
    pixels = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    assert ImageEncoder(without).encode_pixels(pixels).shape == (1, 4)  # an output that nobody speaks of does no harm
    with pytest.raises(MissingPart, match=r"own: model colours gives no features .* with pocketlens export"):
        ImageEncoder(without).encode_features(pixels)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features("x@0", 4, 2, 2), r"features has shape \(n, 3, 2, 2\), expected \(any, 4, 2, 2\)"),
        (Features("x@0", 3, 1, 4), r"features has shape \(n, 3, 2, 2\), expected \(any, 3, 1, 4\)"),
    ],
)
def test_features_of_other_shapes_are_a_format_error(own: Path, features: Features, message: str) -> None:
    manifest = Model.open(own).manifest
    assert manifest.image is not None
    with pytest.raises(FormatError, match=rf"image\.onnx: {message}"):
        ImageEncoder(rewrite(own, replace(manifest, image=replace(manifest.image, features=features))))


def test_features_that_are_not_there_are_a_format_error(own: Path) -> None:
    graph = onnx.load(str(own / "image.onnx"))
    del graph.graph.output[1]
    onnx.save(graph, str(own / "image.onnx"))
    with pytest.raises(
        FormatError, match=r"maps .* to \['embedding'\], expected .* an output 'embedding' and 'features'"
    ):
        ImageEncoder(rewrite(own, Model.open(own).manifest))


def test_a_text_graph_alone_needs_no_tokenizer(own: Path) -> None:
    manifest = Model.open(own).manifest
    assert manifest.text is not None
    graph = TextGraph(Model(own, replace(manifest, text=replace(manifest.text, tokenizer=None))))
    ids = np.array([[2, 4, 3]])
    np.testing.assert_array_equal(graph.encode_ids(ids), TextEncoder(Model.open(own)).encode_ids(ids))


@pytest.mark.parametrize(
    ("name", "kind"), [("text.onnx", TextEncoder), ("tokenizer.json", TextEncoder), ("image.onnx", ImageEncoder)]
)
def test_a_damaged_file_is_found_before_it_is_opened(
    own: Path, name: str, kind: type[TextEncoder] | type[ImageEncoder]
) -> None:
    content = (own / name).read_bytes()
    (own / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptFile, match=f"{name} is damaged"):
        kind(Model.open(own))


def test_a_missing_tower_or_tokenizer_says_so(own: Path) -> None:
    manifest = Model.open(own).manifest
    assert manifest.text is not None
    with pytest.raises(MissingPart, match="model colours has no text tower"):
        TextEncoder(Model(own, replace(manifest, text=None)))
    with pytest.raises(MissingPart, match="model colours has no image tower"):
        ImageEncoder(Model(own, replace(manifest, image=None)))
    with pytest.raises(MissingPart, match=r"without a tokenizer.*--tokenizer FILE"):
        TextEncoder(Model(own, replace(manifest, text=replace(manifest.text, tokenizer=None))))


LENS_BASE = Path(__file__).parents[2] / "models" / "lens-base" / "model"


@pytest.fixture(scope="module")
def lens_base() -> TextEncoder:
    return TextEncoder(Model.open(LENS_BASE))


def test_prompts_are_encoded_as_their_ids_with_pseudo_tokens(lens_base: TextEncoder, rng: np.random.Generator) -> None:
    pseudo = rng.normal(0, 0.05, (2, 384)).astype(np.float32)
    prompts = ["a photo of $ at night", "$", "$ as a toy", "é $\0"]
    found = lens_base.encode_prompts(prompts, pseudo)
    ids = lens_base.pad([lens_base.tokenizer.prompt_ids(prompt.split("$"), 2) for prompt in prompts])
    assert (ids == -1).sum(axis=1).tolist() == [2] * 4
    np.testing.assert_array_equal(found, lens_base.encode_ids(ids, np.stack([pseudo] * 4)))
    for prompt, vector in zip(prompts, found, strict=True):
        np.testing.assert_allclose(lens_base.encode_prompts([prompt], pseudo)[0], vector, atol=1e-5)
    assert lens_base.encode_prompts([], pseudo).shape == (0, 384)


def test_the_places_of_a_prompt_take_the_same_pseudo_tokens(lens_base: TextEncoder, rng: np.random.Generator) -> None:
    pseudo = rng.normal(0, 0.05, (2, 384)).astype(np.float32)
    twice = lens_base.encode_prompts(["$ beside $"], pseudo)
    ids = lens_base.pad([lens_base.tokenizer.prompt_ids(["", " beside ", ""], 2)])
    np.testing.assert_array_equal(twice, lens_base.encode_ids(ids, np.concatenate([pseudo, pseudo])[np.newaxis]))
    assert np.abs(twice - lens_base.encode_prompts(["$ beside $"], pseudo[::-1].copy())).max() > 1e-3


def test_prompts_without_a_place_are_texts(lens_base: TextEncoder) -> None:
    texts = ["a red bicycle", "at night"]
    pseudo = np.ones((1, 384), dtype=np.float32)
    np.testing.assert_allclose(lens_base.encode_prompts(texts, pseudo), lens_base.encode(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("prompts", "pseudo", "message"),
    [
        ("a $", np.ones((1, 384)), "found a single str"),
        (["a $", "a $ $"], np.ones((1, 384)), r"have \[1, 2\] '\$', expected equally many"),
        (["a $", 3], np.ones((1, 384)), "a text query must be a str, found int"),
        (["a $"], np.ones((1, 383)), r"pseudo-tokens are \(1, 383\), expected finite \(1 or more, 384\)"),
        (["a $"], np.ones((0, 384)), r"pseudo-tokens are \(0, 384\)"),
        (["a $"], np.ones((1, 1, 384)), r"pseudo-tokens are \(1, 1, 384\)"),
        (["a $"], np.full((1, 384), np.nan), r"expected finite"),
    ],
)
def test_wrong_prompts_are_bad_queries(lens_base: TextEncoder, prompts: Any, pseudo: Any, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        lens_base.encode_prompts(prompts, pseudo.astype(np.float32))
