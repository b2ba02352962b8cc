"""The identity of an embedding space: the float image tower's weights and the preprocessing before it."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from torch import nn

from pocketlens_export.architecture import Preprocessing


def space_id(name: str, visual: nn.Module, preprocessing: Preprocessing) -> str:
    """Return "<name>@<sha256>" of an image tower as it was trained, before re-parameterization.

    The hash is over each weight's name, dtype, shape and bytes, sorted by name, then the preprocessing as canonical
    JSON. Batch counters of normalisation layers are no weights and are left out.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(visual.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    canonical = json.dumps(dataclasses.asdict(preprocessing), sort_keys=True, separators=(",", ":"))
    digest.update(canonical.encode())
    return f"{name}@{digest.hexdigest()}"
