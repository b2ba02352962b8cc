"""The losses of distillation, each a pure function of a batch of student and teacher embeddings with its source.

All but `fitnet` compare a picture by the student with other pictures by the teacher, g_i.f_j, as a light query meets a
gallery of heavy embeddings.

Shapes: student g and teacher f, float32 (b, dim), of unit length; row i of both is the same view. A loss is a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_HARD = 1e-6  # temperature of ROP's teacher: an order indicator, but for equal similarities


def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of pairs, |g_i - f_i|^2, which is 2 - 2 cosine (FitNets, arXiv 1412.6550).

    The mean is over pairs, not over dimensions too: a weight beside it means the same in every space.
    """
    return (student - teacher).square().sum(dim=1).mean()


def raml(student: Tensor, teacher: Tensor, *, cross: float, own: float) -> Tensor:
    """Return RAML's loss (WACV 2023).

    mean_i (1 - g_i.f_i)^2 + cross mean_{i!=j} (g_i.f_j - f_i.f_j)^2 + own mean_{i!=j} (g_i.g_j - f_i.f_j)^2

    Args:
        student, teacher: float32 (b, dim), b of two or more.
        cross: weight of similarities from the student to the teacher, lambda1.
        own: weight of similarities within the student, lambda2.
    """
    target = teacher @ teacher.T
    pairs = (1 - (student * teacher).sum(dim=1)).square().mean()
    across = _off_diagonal_mean((student @ teacher.T - target).square())
    within = _off_diagonal_mean((student @ student.T - target).square())
    return pairs + cross * across + own * within


def csd(student: Tensor, teacher: Tensor, *, k: int, sharp: float, soft: float) -> Tensor:
    """Return the loss of contextual similarity distillation, CSD (as in github.com/SCY-X/D3still, AIR_Distiller).

    Over the k pictures of the batch that are the teacher's nearest to picture i, itself the first,
    mean_i KL(softmax(f_i.f_a / sharp) || softmax(g_i.f_a / soft)).

    Args:
        student, teacher: float32 (b, dim).
        k: how many neighbours; at most b are taken.
        sharp, soft: temperatures of the teacher's and of the student's similarities.
    """
    asked, nearest = (teacher @ teacher.T).topk(min(k, len(teacher)), dim=1)  # (b, k)
    answered = (student @ teacher.T).gather(1, nearest)
    expected = functional.log_softmax(asked / sharp, dim=1)
    return functional.kl_div(
        functional.log_softmax(answered / soft, dim=1), expected, reduction="batchmean", log_target=True
    )


def rop(student: Tensor, teacher: Tensor, *, k: int, temperature: float) -> Tensor:
    """Return the loss of rank order preservation, ROP (ICLR 2023; as in github.com/SCY-X/D3still, AIR_Distiller).

    Over the k pictures of the batch that are the teacher's nearest to picture i, itself the first, in that order:
    mean_i 1/k sum_a w_ia sum_b (sigmoid((f_i.f_b - f_i.f_a) / 1e-6) - sigmoid((g_i.f_b - g_i.f_a) / temperature))^2
    with w_ia = softmax_a(0.2 f_i.f_a) times a, the position counted from 1.

    Args:
        student, teacher: float32 (b, dim).
        k: length of the list; at most b are taken.
        temperature: of the student's order.
    """
    asked, nearest = (teacher @ teacher.T).topk(min(k, len(teacher)), dim=1)  # (b, k)
    answered = (student @ teacher.T).gather(1, nearest)
    wrong = (torch.sigmoid(_differences(asked) / _HARD) - torch.sigmoid(_differences(answered) / temperature)).square()
    position = torch.arange(1, asked.shape[1] + 1, device=asked.device)
    weights = functional.softmax(0.2 * asked, dim=1) * position
    return (weights * wrong.sum(dim=2)).sum(dim=1).mean() / asked.shape[1]


def d3(student: Tensor, teacher: Tensor, *, k: int, pairs: float, hard: float, simple: float) -> Tensor:
    """Return D3's loss (D3still, decoupled differential distillation, CVPR 2024).

    pairs |(1 - g_i.f_i)_i|_2 / b + (hard mean_i |e_i of reversed|_2 + simple mean_i |e_i of the others|_2) / (k - 1)

    The k pictures of the batch that are the teacher's nearest to picture i, without itself, give k x k differences of
    similarities, dT by the teacher and dS by the student; e = (dS - dT) / (0.1 + |dT|). Reversed: dS dT < 0.

    Args:
        student, teacher: float32 (b, dim), b of two or more.
        k: neighbours; at most b - 1 are taken.
        pairs, hard, simple: the weights alpha, beta and gamma.
    """
    k = min(k, len(teacher) - 1)
    similar = (teacher @ teacher.T).fill_diagonal_(-torch.inf)
    asked, nearest = similar.topk(k, dim=1)  # (b, k)
    expected, found = _differences(asked), _differences((student @ teacher.T).gather(1, nearest))  # (b, k, k)
    error = (found - expected) / (0.1 + expected.abs())
    reversed_ = found * expected < 0
    distances: Tensor = torch.linalg.vector_norm(1 - (student * teacher).sum(dim=1)) / len(teacher)
    between = hard * _norms(error, reversed_) + simple * _norms(error, ~reversed_)
    return pairs * distances + between / max(k - 1, 1)


def _differences(values: Tensor) -> Tensor:
    """Return values[i, b] - values[i, a], (n, a, b), of values (n, k)."""
    return values[:, None, :] - values[:, :, None]


def _norms(error: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean over i of the length of error (n, k, k) where `chosen`; its gradient is 0 where that is 0."""
    norms: Tensor = torch.linalg.vector_norm(torch.where(chosen, error, 0.0).flatten(1), dim=1)
    return norms.mean()


def _off_diagonal_mean(values: Tensor) -> Tensor:
    count = len(values) * (len(values) - 1)
    return (values.sum() - values.diagonal().sum()) / max(count, 1)
