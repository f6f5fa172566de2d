"""A diffusion model of MNIST, and its rectified flow: the networks that samplers and notebooks are shown on.

`unet-mnist` learns to denoise at all levels of EDM's law, told the digit nine times of ten. Then noise is paired with
what that model makes of it, and the same network goes on as a rectified flow (rfpp's recipe without LPIPS). Both are
written as half-precision files of less than 8 MiB, with every checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciode.diffusion import RectifiedFlow, VPLinear, initial_noise, sample
from sciode.diffusion.networks import Preconditioned, build, load_model, save_model
from sciode.diffusion.training import (
    Trained,
    TrainOptions,
    denoise,
    log_normal,
    pyramid,
    reflow_pairs,
    straighten,
    train,
)
from sciode.experiments.digits import Digits
from sciode.experiments.ledger import named, write_table
from sciode.lab.progress import say
from sciode.training import choose_device

__all__ = ["DEVIATION", "FLOW", "MODEL", "Settings", "main"]

MODEL, FLOW = "mnist_unet.safetensors", "mnist_flow.safetensors"
DEVIATION = 0.6
"""Of pixels in [-1, 1]."""
_CLASSES = 10
_STAGES = ("diffusion", "reflow")


@dataclass(frozen=True)
class Settings:
    """steps, seconds: of training the diffusion model, whichever end first; batch, lr, images (of the training set,
    50,000 at most); dropped: share of images without their label; mean, spread: of log(sigma / alpha); preset: of the
    network.

    reflow_steps, reflow_seconds, reflow_lr, pairs, pair_nfe: of the rectified flow; stages: "diffusion", "reflow";
    save: seconds between checkpoints; device.
    """

    steps: int = 12_000
    seconds: float = 480.0
    batch: int = 256
    lr: float = 1e-3
    images: int = 50_000
    dropped: float = 0.1
    mean: float = -0.4
    spread: float = 1.5
    preset: str = "unet-mnist"
    reflow_steps: int = 4_000
    reflow_seconds: float = 240.0
    reflow_lr: float = 3e-4
    pairs: int = 20_000
    pair_nfe: int = 15
    stages: tuple[str, ...] = _STAGES
    save: float = 60.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        named("stages", self.stages, _STAGES)
        if min(self.steps, self.batch, self.reflow_steps, self.pairs, self.pair_nfe) < 1:
            raise ValueError("steps, batch, reflow_steps, pairs and pair_nfe must be at least 1")

    @property
    def autocast(self) -> str | None:
        """bfloat16 where it is fast."""
        return "bfloat16" if self.device.startswith("cuda") else None


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Train what `stages` name into the folder `out`: the two models, pictures, table.json; continues what is there."""
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    out.mkdir(parents=True, exist_ok=True)
    file = out / "table.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    record |= {"settings": settings, "date": date.today().isoformat(), "torch": torch.__version__}
    if settings.device.startswith("cuda"):
        record["gpu"] = torch.cuda.get_device_name()
    for stage, run in (("diffusion", _diffusion), ("reflow", _reflow)):
        if stage in settings.stages:
            began = time.perf_counter()
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
                trained = run(settings, out)
            record[stage] = {
                "steps": trained.steps, "training_seconds": trained.seconds, "losses": trained.losses,
                "stopped": trained.stopped, "seconds": time.perf_counter() - began,
            }  # fmt: skip
            say(f"{stage}: {trained.steps} steps in {trained.seconds:.0f} s, {trained.stopped}")
            write_table(out, record)
    return 0


def _diffusion(settings: Settings, out: Path) -> Trained:
    images, labels = Digits(settings.images, 1, settings.device).parts["train"]
    data = {"x": (images * 255).round().to(torch.uint8).view(-1, 1, 28, 28), "label": labels}
    model = _fresh(settings)
    law = log_normal(model.schedule, settings.mean, settings.spread)

    loss = denoise(law, classes=_CLASSES, dropped=settings.dropped)
    options = TrainOptions(
        settings.steps, settings.seconds, settings.batch, settings.lr, autocast=settings.autocast, seed=settings.seed,
        save=settings.save,
    )  # fmt: skip
    return _trained(settings, out, "diffusion", model, loss, data, options, out / MODEL)


def _fresh(settings: Settings) -> Preconditioned:
    network = build(settings.preset, seed=settings.seed)
    model = Preconditioned(network, VPLinear(), deviation=DEVIATION).to(settings.device)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _trained(
    settings: Settings, out: Path, stage: str, model: Preconditioned, loss: Any, data: Mapping[str, Tensor],
    options: TrainOptions, file: Path,
) -> Trained:  # fmt: skip
    def keep(average: Any, step: int) -> None:
        record = {"data": "MNIST, the first training images", "step": step, "seed": settings.seed, "stage": stage,
                  "date": date.today().isoformat(), "settings": asdict(settings)}  # fmt: skip
        save_model(file, average, dtype=torch.float16, record=record)
        _picture(average, out / f"{stage}.png", settings)
        say(f"{stage}: step {step} kept")

    return train(model, loss, data, options, folder=out / stage, keep=keep)


def _reflow(settings: Settings, out: Path) -> Trained:
    """From the diffusion model in `out`: pairs, then the same network as a flow, trained on straight lines."""
    teacher, _ = load_model(out / MODEL, settings.device)
    labels = torch.arange(settings.pairs) % _CLASSES
    pairs = reflow_pairs(
        _lowered(teacher, settings), VPLinear(), (settings.pairs, 1, 28, 28), seed=settings.seed,
        cond={"label": labels}, device=settings.device, sampler="unipc-3", nfe=settings.pair_nfe,
    )  # fmt: skip
    say(f"reflow: {settings.pairs} pairs")
    model = teacher.on(RectifiedFlow(), "flow").requires_grad_(True).train()
    options = TrainOptions(
        settings.reflow_steps, settings.reflow_seconds, settings.batch, settings.reflow_lr, autocast=settings.autocast,
        seed=settings.seed, save=settings.save,
    )  # fmt: skip
    return _trained(settings, out, "reflow", model, straighten(premetric=pyramid()), pairs, options, out / FLOW)


def _lowered(model: Callable[..., Tensor], settings: Settings) -> Callable[..., Tensor]:
    """The model in the precision that it was trained in."""
    if settings.autocast is None:
        return model

    def predict(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return model(x, t, **cond)

    return predict


def _picture(model: Preconditioned, file: Path, settings: Settings) -> None:
    """Eight of every digit: of a flow by one step, of a diffusion model by 10."""
    from sciode.lab.digits import digits_picture

    labels = torch.arange(_CLASSES).repeat(8)
    flow = isinstance(model.schedule, RectifiedFlow)
    start = 1.0 if flow else None
    noise = initial_noise(model.schedule, (80, 1, 28, 28), t_start=start, seed=7).to(settings.device)
    options: dict[str, Any] = (
        {"sampler": "ddim", "steps": 1, "t_start": 1.0} if flow else {"sampler": "unipc-3", "nfe": 10}
    )
    with torch.no_grad():
        made = sample(
            model,
            noise,
            model.schedule,
            prediction=model.prediction,
            cond={"label": labels.to(noise.device)},
            **options,
        )
    digits_picture(file, made.cpu(), columns=_CLASSES)
