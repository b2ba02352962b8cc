"""The losses of a token learner.

ISA (arXiv 2403.01431) trains with a global contrastive distillation and a local alignment regularisation. Its formulas
could not be verified; these are a reconstruction from what is known of them, for one reason each.

Global contrastive distillation: with q_i the text embedding of "a photo of $1 … $K", the tokens from the light tower's
map of view i, and v_i the heavy tower's embedding of the same view, InfoNCE in both directions over the batch, at a
temperature: `pocketlens_export.fit.losses.symmetric_info_nce`, with scale = 1 / temperature. A query is searched among
heavy embeddings, so that its sentence must be nearer to its own than to others.

Local alignment: `local_alignment` where the heavy tower gives a feature map, `token_drift` where it gives none. The
first term sees the sentence as a whole and lets one token carry everything. Here each token must tell what the heavy
tower has at the place where that token looks; without such a map, tokens are at least kept among words.
"""

from __future__ import annotations

from torch import Tensor

from pocketlens_export.fit.losses import cosine_loss


def local_alignment(told: Tensor, shares: Tensor, cells: Tensor) -> Tensor:
    """Return 1 - cosine of what each token tells to the heavy cells that it looks at, mean over n · k tokens.

    The heavy cells' mean over the training views must be taken from them before: what all places share aligns nothing.
    The target gives no gradient: attention must not go where cells are easy to tell.

    Args:
        told: linear function of the tokens, float32 (n, k, channels of the heavy map).
        shares: where the tokens look, float32 (n, cells, k), adding up to 1 over the cells.
        cells: the heavy map on the light map's grid, float32 (n, cells, channels).
    """
    target = (shares.transpose(1, 2) @ cells).detach()  # (n, k, channels)
    return cosine_loss(told, target)


def token_drift(tokens: Tensor, mean: Tensor, *, spread: float) -> Tensor:
    """Return the squared distance of the mean pseudo-token to the mean word, as a share of the words' own spread.

    Args:
        tokens: float32 (n, k, token_dim).
        mean: of the text tower's token embeddings, float32 (token_dim,).
        spread: mean squared distance of the token embeddings to their mean.
    """
    return (tokens.mean(dim=(0, 1)) - mean).square().sum() / spread
