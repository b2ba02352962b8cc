"""What a trained network is worth: how well it gives back held-out texts and pictures, and what storing it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pocketlens._types import Float32s
from pocketlens.errors import Refused
from pocketlens_export.fit.network_graph import run_network
from pocketlens_export.fit.networks import Network
from pocketlens_export.fit.prompts import PLAIN, Prompts
from pocketlens_export.fit.recipe import Setup

MIN_STORED_COSINE = 0.999  # of composed text embeddings, by the stored network to the trained one
MAX_HELD_OUT = 1_000
_BATCH = 64


def measure_network(setup: Setup, network: Network) -> dict[str, float]:
    """Return figures by name: cosine to held-out texts, recall of held-out pictures, each over at most 1,000.

    `text_cosine` is the mean cosine of "a photo of $" to the text that `$` was made from; `picture_recall_at_1` the
    share of pictures that are the nearest to their own "a photo of $" among `held_out_pictures`.
    """
    network.eval()
    figures: dict[str, float] = {}
    texts = setup.data.held_texts[:MAX_HELD_OUT]
    if texts:
        vectors = setup.encode(texts)
        found = compose_plain(setup.prompts, _tokens(setup, network, vectors, of_texts=True))
        figures["text_cosine"] = float((found * vectors).sum(axis=1).mean())
    pictures = setup.data.held_pictures[:MAX_HELD_OUT]
    if len(pictures):
        found = compose_plain(setup.prompts, _tokens(setup, network, pictures, of_texts=False))
        figures["picture_recall_at_1"] = float((np.argmax(found @ pictures.T, axis=1) == np.arange(len(found))).mean())
        figures["held_out_pictures"] = float(len(pictures))
    return figures


def check_stored(setup: Setup, network: Network, path: Path) -> float:
    """Return the least cosine of "a photo of $" by the stored network to that by the trained one.

    Raises:
        Refused: it is below 0.999.
    """
    network.eval()
    vectors = _probes(setup)
    trained = compose_plain(setup.prompts, _tokens(setup, network, vectors, of_texts=False))
    return least_stored_cosine(trained, compose_plain(setup.prompts, run_network(path, vectors)))


def least_stored_cosine(trained: Float32s, stored: Float32s) -> float:
    """Return the least cosine of composed unit embeddings by a stored network to those by the trained one.

    Raises:
        Refused: it is below 0.999.
    """
    least = float((trained * stored).sum(axis=1).min())
    if not least >= MIN_STORED_COSINE:
        raise Refused(
            f"the network stored with 8-bit weights has cosine {least:.5f} to the trained one, expected at least "
            f"{MIN_STORED_COSINE}"
        )
    return least


def compose_plain(prompts: Prompts, pseudo_tokens: Float32s) -> Float32s:
    """Return unit embeddings, float32 (n, dim), of "a photo of $" with pseudo-tokens (n, tokens, token_dim)."""
    row = prompts.rows([PLAIN]).ids
    found = []
    with torch.no_grad():
        for start in range(0, len(pseudo_tokens), _BATCH):
            some = torch.from_numpy(pseudo_tokens[start : start + _BATCH]).to(prompts.device)
            found.append(prompts.encode(np.repeat(row, len(some), axis=0), some).cpu().numpy())
    return np.concatenate(found)


def _tokens(setup: Setup, network: Network, vectors: Float32s, *, of_texts: bool) -> Float32s:
    with torch.no_grad():
        given = setup.put(vectors)
        made: Float32s = (network.of_texts(given) if of_texts else network(given)).cpu().numpy()
    return made


def _probes(setup: Setup) -> Float32s:
    """Return held-out vectors of every kind there is, or else some of the training's."""
    pictures = setup.data.held_pictures if len(setup.data.held_pictures) else setup.data.pictures
    texts = setup.data.held_texts or setup.data.texts
    vectors = [pictures[:100]]
    if texts:
        vectors.append(setup.encode(texts[:100]))
    return np.concatenate(vectors)
