"""Trains the projector: trunk features (1280) -> MiniLM's space (384), in two steps.

Experts learn drawings: each is a projector whose sum with ConSE is trained to find its texts among the batch's. The
teacher is the sum of the experts and ConSE. The student, one projector that open_clip can hold, starts as an
approximation of ConSE (a hidden unit for each group of classes) and learns to place any feature where the teacher does:
drawings, mixtures of them, and imagined photographs. Started at random it forgets photographs instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from losses import both_ways
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped,unused-ignore]
from teacher import HALF, Conse, Photographs
from timm.layers.mlp import Mlp
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Examples:
    """Training pictures.

    Attributes:
        features: float16 (n, views, 1280).
        captions: for each picture the rows of its captions in `texts`.
        keywords: for each picture the rows of its keywords; may be empty.
        texts: float32 (m, 384), unit vectors.
    """

    features: Tensor
    captions: list[list[int]]
    keywords: list[list[int]]
    texts: Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """The hyper-parameters, chosen on the validation splits."""

    expert_steps: int = 1200
    student_steps: int = 500
    batch: int = 384
    expert_rate: float = 2e-3
    student_rate: float = 1e-3
    expert_decay: float = 0.05
    student_decay: float = 0.01
    temperature: float = 0.05
    keyword_share: float = 0.3
    conse_weight: float = 1.25
    imagined: float = 0.4
    contrast: float = 0.1
    match: float = 10.0
    class_groups: int = 600
    group_gain: float = 1.5
    group_threshold: float = 3.0
    group_scale: float = 0.3
    student_share: float = 0.85


def projector() -> Mlp:
    """Return open_clip's `timm_proj: mlp` head for 384 dimensions, with a bias, at random."""
    return Mlp(1280, 768, 384)


def conse_projector(conse: Conse, plan: Plan) -> Mlp:
    """Return a projector of which `class_groups` hidden units are thresholded logits of groups of similar classes.

    Without its normalising sum, which the unit length of the output makes superfluous, ConSE is a sum of class vectors
    weighted by exp(logit); GELU(gain * (logit - threshold)) in place of it finds photographs as well.
    """
    model = projector()
    likeness = torch.cat([normalize(conse.weight - conse.weight.mean(0), dim=1), conse.classes], dim=1)
    labels = fcluster(linkage(likeness.numpy(), "ward"), plan.class_groups, "maxclust") - 1
    biases = model.fc1.bias
    assert biases is not None
    with torch.no_grad():
        for unit in range(int(labels.max()) + 1):
            members = torch.from_numpy(np.flatnonzero(labels == unit))
            model.fc1.weight[unit] = plan.group_gain * conse.weight[members].mean(0)
            biases[unit] = plan.group_gain * (conse.bias[members].mean() - plan.group_threshold)
            model.fc2.weight[:, unit] = plan.group_scale * normalize(conse.classes[members].mean(0), dim=0)
    return model


def _schedule(
    model: Mlp, rate: float, decay: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)


def _project(model: Mlp, features: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=HALF):
        projected = model(features)
    return normalize(projected.float(), dim=1)


def _some(examples: Examples, count: int, plan: Plan, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return features float32 (count, 1280) of random views and a random text float32 (count, 384) of each."""
    pictures = rng.integers(0, len(examples.captions), count)
    views = rng.integers(0, examples.features.shape[1], count)
    rows = []
    for picture in pictures:
        words = examples.keywords[picture]
        pool = words if words and rng.random() < plan.keyword_share else examples.captions[picture]
        rows.append(pool[rng.integers(len(pool))])
    return examples.features[pictures, views].float(), examples.texts[rows]


def _contrast(seen: Tensor, said: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss both ways; texts that mean the same share their target."""
    return both_ways(seen, said, torch.softmax(said @ said.T / temperature, dim=1), temperature)


def train_expert(examples: Examples, conse: Conse, plan: Plan, seed: int) -> Mlp:
    """Return a projector whose unit output plus `conse_weight` times ConSE finds the pictures' texts."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = projector().train()
    optimizer, schedule = _schedule(model, plan.expert_rate, plan.expert_decay, plan.expert_steps)
    for _ in range(plan.expert_steps):
        features, said = _some(examples, plan.batch, plan, rng)
        with torch.no_grad():
            known = conse(features)
        own = _project(model, features)
        joined = normalize(own + plan.conse_weight * known, dim=1)
        loss = _contrast(joined, said, plan.temperature) + 0.5 * _contrast(own, said, plan.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimizer.step()
        schedule.step()
    return model.eval()


def teacher(experts: list[Mlp], conse: Conse, weight: float) -> Encoder:
    """Return the teacher: the mean of the experts' unit outputs plus `weight` times ConSE, at unit length."""

    def place(features: Tensor) -> Tensor:
        with torch.no_grad():
            own = torch.stack([_project(expert, features) for expert in experts]).mean(0)
            return normalize(own + weight * conse(features), dim=1)

    return place


def _mixtures(examples: Examples, count: int, rng: np.random.Generator) -> Tensor:
    """Return convex combinations of two pictures' features, float32 (count, 1280)."""
    size = (2, count)
    picked = rng.integers(0, len(examples.captions), size), rng.integers(0, examples.features.shape[1], size)
    first, second = examples.features[picked[0], picked[1]].float()
    share = torch.from_numpy(rng.uniform(0, 0.5, (count, 1)).astype(np.float32))
    mixed: Tensor = first + share * (second - first)
    return mixed


def train_student(
    model: Mlp, examples: Examples, place: Encoder, photographs: Photographs, plan: Plan, seed: int
) -> Mlp:
    """Return `model` trained: it follows the teacher everywhere and the texts of the training pictures."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    model = model.train()
    optimizer, schedule = _schedule(model, plan.student_rate, plan.student_decay, plan.student_steps)
    imagined = int(plan.batch * plan.imagined)
    for _ in range(plan.student_steps):
        features, said = _some(examples, plan.batch, plan, rng)
        mixed = _mixtures(examples, plan.batch - imagined, rng)
        everything = torch.cat([features, mixed, photographs.draw(imagined, generator)])
        target = place(everything)
        placed = _project(model, everything)
        loss = plan.match * (1 - (placed * target).sum(1)).mean()
        probes = examples.texts[rng.integers(0, len(examples.texts), 512)].T
        wanted = torch.softmax(target @ probes / plan.temperature, dim=1)
        loss = loss + cross_entropy(placed @ probes / plan.temperature, wanted)
        loss = loss + plan.contrast * _contrast(placed[: plan.batch], said, plan.temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimizer.step()
        schedule.step()
    return model.eval()


def blend(start: Mlp, trained: Mlp, share: float) -> Mlp:
    """Return a projector with `share` of the trained weights and the rest of the weights that training started from.

    Between the two the way is smooth, and part of it back keeps more of what the start knew (arXiv 2109.01903).
    """
    mixed = projector().eval()
    before, after = start.state_dict(), trained.state_dict()
    mixed.load_state_dict({name: before[name] + share * (after[name] - before[name]) for name in before})
    return mixed
