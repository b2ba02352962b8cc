"""Trains both towers together: the trunk's last stages, the projector and the text tower's last layers.

A step sees pairs of pictures of the same thing, half of them in families that differ in tone, gender or hair alone, so
that these must be told apart. Pictures find their texts and their texts them (CLIP, arXiv 2103.00020; things that are
twice in a batch share their target), pictures of a thing find each other (SupCon, arXiv 2004.11362), and attributes
find their words. Anchors keep what was known: photographs, imagined ones and other texts stay where they were.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from features import Maps
from late import Early, Late
from losses import attribute_loss, contrast, same_thing
from pictures import Picture
from teacher import Photographs
from texts import TextTower
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from words import attribute_texts, attributes, say

LOG = logging.getLogger("lens-base")


@dataclass(frozen=True, slots=True)
class JointPlan:
    """The hyper-parameters, chosen on the validation splits. `rate` is the projector's."""

    steps: int = 400
    things: int = 96
    photographs: int = 64
    imagined: int = 64
    held_texts: int = 48
    probes: int = 256
    rate: float = 5e-4
    trunk_rate: float = 1.5e-4
    text_rate: float = 1e-4
    decay: float = 0.02
    temperature: float = 0.05
    family_share: float = 0.5
    clipart_share: float = 0.25
    same: float = 0.5
    attribute: float = 1.0
    anchor: float = 10.0
    probe_share: float = 0.1
    text_anchor: float = 5.0
    largest_gradient: float = 5.0
    trained_share: float = 0.5


class Draw:
    """Draws batches: things, two pictures of each where there are two, and what is said of them."""

    def __init__(self, pictures: Sequence[Picture], plan: JointPlan, rng: np.random.Generator) -> None:
        self.plan, self.rng = plan, rng
        self.members: dict[str, list[int]] = defaultdict(list)
        families: dict[str, set[str]] = defaultdict(set)
        for row, picture in enumerate(pictures):
            self.members[picture.thing].append(row)
            if picture.family:
                families[picture.family].add(picture.thing)
        self.families = [sorted(things) for _, things in sorted(families.items()) if len(things) > 2]
        self.emoji = sorted({p.thing for p in pictures if p.family})
        self.clipart = sorted({p.thing for p in pictures if not p.family})

    def rows(self) -> tuple[list[int], Tensor]:
        """Return rows of pictures, and for each the number of its thing in this batch, int64."""
        rows, numbers = [], []
        for number, thing in enumerate(self._things()):
            members = self.members[thing]
            chosen = self.rng.permutation(len(members))[:2]
            rows += [members[place] for place in chosen]
            numbers += [number] * len(chosen)
        return rows, torch.tensor(numbers)

    def _things(self) -> list[str]:
        plan, rng, things = self.plan, self.rng, list[str]()
        while len(things) < plan.things:
            chance = rng.random()
            if chance < plan.family_share:
                family = self.families[rng.integers(len(self.families))]
                things += [family[place] for place in rng.permutation(len(family))[:4]]
            else:
                pool = self.clipart if chance < plan.family_share + plan.clipart_share else self.emoji
                things.append(pool[rng.integers(len(pool))])
        return list(dict.fromkeys(things[: plan.things]))


@dataclass(frozen=True, slots=True)
class Towers:
    """Both towers, the picture tower in its two parts."""

    early: Early
    late: Late
    text: TextTower

    def encode(self, maps: Maps) -> Tensor:
        """Return unit vectors float32 (n, 384) of the first view of pictures, from their early maps."""
        with torch.inference_mode():
            return torch.cat([self.late(some) for some in maps.clean()])

    def blended(self, before: Towers, share: float) -> Towers:
        """Return `share` of these weights and the rest of what they were before (arXiv 2109.01903)."""
        mixed = copy.deepcopy(self)
        for module, old in ((mixed.late, before.late), (mixed.text, before.text)):
            start, trained = old.state_dict(), module.state_dict()
            module.load_state_dict({
                name: value.lerp(trained[name], share) if value.is_floating_point() else value
                for name, value in start.items()
            })  # fmt: skip
        return mixed


@dataclass(frozen=True, slots=True)
class Known:
    """What must stay: where the untrained towers put photographs and texts.

    Attributes:
        photographs: early maps of photographs.
        imagined: draws features of imagined photographs, by which the projector is held.
        late: the late part as it was.
        texts: texts whose vectors stay, `vectors` float32 (n, 384).
        classes: unit vectors float32 (1000, 384) of ImageNet's classes.
    """

    photographs: Maps
    imagined: Photographs
    late: Late
    texts: Sequence[str]
    vectors: Tensor
    classes: Tensor


def train_joint(
    late: Late, text: TextTower, pictures: Sequence[Picture], maps: Maps, known: Known, plan: JointPlan, seed: int
) -> None:
    """Train both towers in place.

    Args:
        maps: early maps of `pictures`, in their order.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    draw, told = Draw(pictures, plan, rng), [attributes(picture) for picture in pictures]
    groups = [(list(late.head.parameters()), plan.rate), (list(late.layers.parameters()), plan.trunk_rate)]
    groups.append((text.trained(), plan.text_rate))
    optimizer = torch.optim.AdamW([{"params": p, "lr": rate} for p, rate in groups], weight_decay=plan.decay)
    rates = [rate for _, rate in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=plan.steps, pct_start=0.1)
    every = [parameter for parameters, _ in groups for parameter in parameters]
    start = time.monotonic()
    late.train()
    for step in range(1, plan.steps + 1):
        rows, numbers = draw.rows()
        losses = _losses(late, text, known, plan, rng, (rows, numbers, maps.draw(rows, rng)), pictures, told)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call,unused-ignore]
        torch.nn.utils.clip_grad_norm_(every, plan.largest_gradient)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == plan.steps:
            left = (time.monotonic() - start) / step * (plan.steps - step)
            shown = " ".join(f"{float(loss.detach()):.3f}" for loss in losses)
            LOG.info("step %d of %d, losses %s, %.0f s left", step, plan.steps, shown, left)
    late.eval()


def _losses(
    late: Late, text: TextTower, known: Known, plan: JointPlan, rng: np.random.Generator,
    batch: tuple[list[int], Tensor, Tensor], pictures: Sequence[Picture], told: Sequence[dict[str, int]],
) -> list[Tensor]:  # fmt: skip
    """Return the weighted losses of one batch: texts, same thing, attributes, photographs, held texts."""
    rows, numbers, drawn = batch
    photographs = known.photographs.draw(rng.integers(0, len(known.photographs), plan.photographs), rng)
    placed = late(torch.cat([drawn, photographs]))
    dreamt = known.imagined.draw(plan.imagined, torch.Generator().manual_seed(int(rng.integers(1 << 31))))
    seen = placed[: len(rows)]
    kept = torch.cat([placed[len(rows) :], normalize(late.head(dreamt), dim=1)])
    held = rng.integers(0, len(known.texts), plan.held_texts)
    words = attribute_texts(rng)
    said = [say(pictures[row], rng) for row in rows]
    spoken = text([*said, *(known.texts[i] for i in held), *(word for group in words.values() for word in group)])
    own, others, rest = spoken.split([len(rows), len(held), len(spoken) - len(rows) - len(held)])
    vectors = dict(zip(words, rest.split([len(group) for group in words.values()]), strict=True))
    with torch.no_grad():
        before = torch.cat([known.late(photographs), normalize(known.late.head(dreamt), dim=1)])
        probes = known.classes[rng.integers(0, len(known.classes), plan.probes)].T
        wanted = torch.softmax(before @ probes / plan.temperature, dim=1)
    moved = (1 - (kept * before).sum(1)).mean()
    moved = moved + plan.probe_share * cross_entropy(kept @ probes / plan.temperature, wanted)
    return [
        contrast(seen, own, numbers, plan.temperature),
        plan.same * same_thing(seen, numbers, plan.temperature),
        plan.attribute * attribute_loss(seen, [told[row] for row in rows], vectors, plan.temperature),
        plan.anchor * moved,
        plan.text_anchor * (1 - (others * known.vectors[held]).sum(1)).mean(),
    ]
