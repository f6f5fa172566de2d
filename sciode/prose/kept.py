"""Pools that were drawn once: a file each, by what was asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import torch

from sciode.prose.guesses import guesses_of
from sciode.prose.pool import Pool, filled
from sciode.prose.samples import Drawing
from sciode.prose.vocabulary import Vocabulary
from sciode.training import load_checkpoint, save_checkpoint

__all__ = ["kept"]

_TENSORS = ("times", "values", "system", "owner", "targets", "components")


def kept(how: Drawing, seed: int, dimension: int, folder: Path | str, device: torch.device | str = "cpu") -> Pool:
    """Return the pool of `filled`, from a file in the folder if it was drawn before, which is written otherwise.

    The file's name hangs on all that is drawn (equations of systems of your own, too), the seed, the kind of device and
    torch's version. 512,000 trajectories of 192 frames take 1.2 GB.
    """
    systems = [
        (one.name, one.start, one.spread, one.first, dict(one.nominal), [tree.symbols for tree in one.equations])
        for one in how.chosen
    ]
    asked = {one.name: getattr(how, one.name) for one in fields(how) if one.name != "systems"}
    made_by = torch.device(device).type, str(torch.__version__)
    text = json.dumps([systems, asked, seed, dimension, made_by])
    file = Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"
    if not file.exists():
        pool = filled(how, seed, dimension, device)
        save_checkpoint(file, {name: getattr(pool, name) for name in _TENSORS}, {"left_out": pool.left_out})
        return pool
    tensors, record = load_checkpoint(file)
    vocabulary = Vocabulary(dimension)
    return Pool(
        **{name: one.to(device) for name, one in tensors.items()},
        guesses=guesses_of(how.chosen, vocabulary, device),
        names=how.names,
        vocabulary=vocabulary,
        left_out=record["left_out"],
    )
