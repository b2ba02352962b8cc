"""The maps with a closed form, in float64: ridge regression and the orthogonal Procrustes problem.

Ridge is the closed form of Text-To-Concept's linear aligner (Moayeri et al., ICML 2023), which takes its steps by SGD;
its code multiplies the bias by c1/c2, where undoing the scaling of both sides gives b/c2. Here there is no such factor:
the bias is what carries one mean into the other. Procrustes is Drift-Adapter's (EMNLP 2025, arXiv 2509.23471).
"""

from __future__ import annotations

import numpy as np

from pocketlens_export.align.maps import Fitted, Float64s, Map, Pairs, choose

PENALTIES = tuple(float(10 ** (exponent / 2)) for exponent in range(-12, 3))  # 1e-6 to 10
LEAST_OF_FEW = 1e-3  # with fewer pairs than dimensions the data alone do not say what the map is


def choose_ridge(train: Pairs, validation: Pairs) -> Fitted:
    """Return the ridge regression whose penalty does best on the validation pairs, of a grid over seven decades.

    With fewer pairs than light dimensions the grid begins at 1e-3.
    """
    least = LEAST_OF_FEW if len(train) < train.light.shape[1] else 0.0
    penalties = [penalty for penalty in PENALTIES if penalty >= least * (1 - 1e-9)]
    fitted = zip(penalties, fit_ridge(train, penalties), strict=True)
    return choose([(f"penalty {penalty:.3g}", map) for penalty, map in fitted], validation)


def fit_ridge(pairs: Pairs, penalties: list[float]) -> list[Map]:
    """Return the maps of least sum over pairs of |x W + b - y|² plus a penalty times |W|², one a penalty.

    W = (C + p s I)⁻¹ Xc' Yc / n with C = Xc' Xc / n and s the mean of C's diagonal; b = ȳ - x̄ W. Xc and Yc are the
    pairs minus their means x̄ and ȳ, every pair weighs the same, and the bias is not penalised.

    Args:
        pairs: n pairs.
        penalties: p, in shares of s.
    """
    x_mean, y_mean, x, y = _centred(pairs)
    covariance, crossed = x.T @ x / len(x), x.T @ y / len(x)
    values, vectors = np.linalg.eigh(covariance)  # one decomposition does for all penalties
    turned, scale = vectors.T @ crossed, float(np.trace(covariance)) / len(covariance)
    maps = []
    for penalty in penalties:
        weight = vectors @ (turned / (values + penalty * scale)[:, np.newaxis])
        maps.append(Map(weight, y_mean - x_mean @ weight))
    return maps


def choose_procrustes(train: Pairs, validation: Pairs) -> Fitted:
    """Return the Procrustes map, as it is or about the means, whichever does better on the validation pairs."""
    return choose([("plain", fit_procrustes(train)), ("centred", fit_centred_procrustes(train))], validation)


def fit_procrustes(pairs: Pairs) -> Map:
    """Return x W with the semi-orthogonal W of the greatest sum of inner products x W · y, and no bias.

    W = U V' of the singular value decomposition U S V' = X' Y. W' W = I where the light space has at least as many
    dimensions as the heavy one, else W W' = I. For equal dimensions, and into more, lengths are kept, so that it is
    the least sum of |x W - y|² too; into fewer dimensions that has no closed form.
    """
    weight = _semi_orthogonal(pairs.light, pairs.heavy)[0]
    return Map(weight, np.zeros(weight.shape[1]))


def fit_centred_procrustes(pairs: Pairs) -> Map:
    """Return c (x - x̄) W + ȳ, with W as above for the pairs minus their means, and c the least squares' scale.

    The scale matters here: rows are brought to length 1 after the mean was added (Gower and Dijksterhuis, 2004, §4).
    """
    x_mean, y_mean, x, y = _centred(pairs)
    weight, total = _semi_orthogonal(x, y)
    weight = weight * (total / max(float(np.square(x @ weight).sum()), np.finfo(np.float64).tiny))
    return Map(weight, y_mean - x_mean @ weight)


def _semi_orthogonal(x: Float64s, y: Float64s) -> tuple[Float64s, float]:
    """Return W (light dim, heavy dim), and the sum of the singular values, which is that of x W · y."""
    left, values, right = np.linalg.svd(x.T @ y, full_matrices=False)
    return np.asarray(left @ right), float(values.sum())


def _centred(pairs: Pairs) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    x_mean, y_mean = pairs.light.mean(axis=0), pairs.heavy.mean(axis=0)
    return x_mean, y_mean, pairs.light - x_mean, pairs.heavy - y_mean
