"""Models of one seed, trained side by side: those of `sciode train prose` and of `sciode train prose_fields`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from sciode.prose import Course, Pool, Reading, Training, Transformer, save_model
from sciode.training import isolated_rng

__all__ = ["Trained", "course_of", "fitted"]

_SAVE = 60.0


class Trained(NamedTuple):
    """Models by name, with their averaged weights, and how many steps were made: seconds may end a training."""

    models: dict[str, nn.Module]
    steps: int


def course_of(settings: Any, seed: int, reading: Reading, warmup: int) -> Course:
    """What the settings of a table say of its training. warmup: steps at most; a tenth of a short training."""
    return Course(
        settings.steps, settings.seconds, settings.batch, settings.lr, engine=settings.training, seed=seed,
        warmup=min(warmup, settings.steps // 10), every=min(100, settings.steps), reading=reading,
    )  # fmt: skip


def fitted(
    kinds: Mapping[str, Callable[[], nn.Module]],
    pool: Callable[[], Pool],
    course: Course,
    settings: Any,
    stamp: Mapping[str, Any],
    stream: int,
    out: Path,
    **told: Any,
) -> Trained:
    """Train models of these kinds in lockstep, or go on where that was interrupted, in a folder within `out`.

    settings: a table's; its device, and `rival_lr` of what is no transformer. stamp: what training hangs on beside the
    names of models and the seed. stream: of the seed, that of first weights. Averaged weights of transformers lie in
    `out`/weights; told: what those files say of them.
    """
    if not kinds:
        return Trained({}, 0)
    with isolated_rng(course.seed, stream):
        models = {name: kind().to(settings.device) for name, kind in kinds.items()}
    rates = {name: settings.rival_lr for name, one in models.items() if not isinstance(one, Transformer)}
    text = json.dumps([stamp, list(kinds), course.seed], sort_keys=True)
    folder = out / "fits" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def share(name: str, model: nn.Module, weights: dict[str, Tensor]) -> None:
        if isinstance(model, Transformer):
            file = out / "weights" / f"{name.replace(' ', '_')}-{course.seed}.safetensors"
            save_model(file, model, weights, **told, course=asdict(course), steps=training.step)

    training = Training(models, lambda _: pool(), course, folder, rates=rates, share=share)
    training.run(save_seconds=_SAVE)
    training.judge()
    return Trained(models, training.step)
