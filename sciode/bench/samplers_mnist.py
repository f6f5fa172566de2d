"""`sciode bench samplers_mnist`: samplers on a trained U-Net, beside diffusers' on the same grid and noise.

VP-linear, uniform log-SNR where no other grid is named, t from 1 to 1e-3, float32. A row is one sampler from one seed's
noise at every budget: the root mean square distance of pixels from the end of 1,000 steps from the same noise, and how
far its samples are from test images: sliced Wasserstein, MMD, and the Frechet distance of features of a classifier
trained in the same run (no FID: no Inception). Labels are those of the test images; nothing is guided or timed.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciode import data
from sciode.bench.diffusers_peers import PEERS, available, sample_with
from sciode.bench.digit_judge import trained_judge
from sciode.diffusion import VPLinear, estimate_ems, initial_noise, sample, sampler
from sciode.diffusion.grids import times_of
from sciode.diffusion.networks import load_model, load_statistics, pretrained, save_statistics
from sciode.diffusion.path import Path
from sciode.diffusion.quality import frechet_distance, mmd, sliced_wasserstein
from sciode.lab.progress import say
from sciode.training import append_json, choose_device, read_json_lines

__all__ = ["BUDGETS", "OURS", "THEIRS", "Bench", "Settings", "main", "measure"]

SCHEDULE, START, END = VPLinear(), 1.0, 1e-3
BUDGETS = (5, 6, 8, 10, 15, 20)
OURS = (
    "dpm++-3m", "dpm++-2m", "unipc-3", "dpm-v3", "unipc-2", "deis-tab-3", "ddim", "edm-heun", "dpm-v3-3",
    "deis-rho-ab-3", "dpm-3m", "ipndm", "bdia", "unipc-asinh-2", "dpm-v3, middle", "unipc-asinh-2, middle",
    "dpm++-2m, middle", "deis-tab-3, middle", "ipndm, middle", "unipc-3, middle", "deis-tab-3, quadratic",
    "dpm-v3 lowered, middle", "unipc-asinh-2 lowered, middle",
)  # fmt: skip
"""Samplers, "lowered" where the last steps have lower orders at every budget, after a comma the grid where it is not
uniform in the log-SNR."""
THEIRS = ("dpmsolver++ 2", "dpmsolver++ 3", "unipc 2 bh2", "unipc 3 bh2", "deis 3")
PREFIX, LOWERED = "diffusers: ", ", lowered"
FLOOR, REFERENCE, COARSER = "held-out images", "reference", "reference with half the steps"


@dataclass(frozen=True)
class Settings:
    """samples: from each seed; paired: of them, those whose 1,000-step end is known; reference: its steps, of unipc-2;
    ems_images, ems_points: of v3's statistics; judge_steps: of the classifier's training."""

    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 512
    paired: int = 256
    reference: int = 1000
    budgets: tuple[int, ...] = BUDGETS
    names: tuple[str, ...] = OURS
    peers: tuple[str, ...] = THEIRS
    ems_images: int = 2048
    ems_points: int = 64
    judge_steps: int = 800
    device: str = "cpu"


class Bench:
    """The model, the test images, the judge, and what several rows share."""

    def __init__(self, settings: Settings, checkpoint: File | None = None, out: File | None = None) -> None:
        self.settings, self.out = settings, out
        self.model, self.record = (
            pretrained("mnist_unet", settings.device) if checkpoint is None else load_model(checkpoint, settings.device)
        )
        with np.load(data.get("mnist")) as file:
            parts = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
        n = settings.samples
        self.train, self.train_labels = self._images(parts["x_train"][:50_000]), parts["y_train"][:50_000].long()
        self.held = self._images(parts["x_train"][50_000:])
        self.test, self.labels = self._images(parts["x_test"][:n]), parts["y_test"][:n].long().to(settings.device)
        self.judge = trained_judge(
            self.train, self.train_labels.to(settings.device), steps=settings.judge_steps
        )  # fmt: skip
        self.accuracy = self._accuracy(self.test)
        self._seen = self.judge.features(self.test)
        self._ems: Any = None

    def _images(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.settings.device).float() / 127.5 - 1)[:, None]

    def _accuracy(self, images: Tensor) -> float:
        return float((self.judge(images).argmax(1) == self.labels[: len(images)]).float().mean())

    @property
    def ems(self) -> Any:
        """v3's statistics, of training images with their own labels, all in one batch."""
        file = None if self.out is None else self.out / f"ems_{self.record.get('step', 0)}.safetensors"
        if self._ems is None and file is not None and file.exists():
            self._ems = load_statistics(file)[0]
        if self._ems is None:
            count = self.settings.ems_images
            label = self.train_labels[:count].to(self.settings.device)
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
                self._ems = estimate_ems(
                    partial(self.model, label=label), self.train[:count], SCHEDULE, t_start=START, t_end=END,
                    points=self.settings.ems_points, degree=min(16, self.settings.ems_points // 2), batch=count,
                )  # fmt: skip
            if file is not None:
                save_statistics(file, self._ems, record={"images": count, "points": self.settings.ems_points})
        return self._ems

    def noise(self, seed: int) -> Tensor:
        """Of all samples of a seed, the same on every device."""
        drawn = initial_noise(SCHEDULE, (self.settings.samples, 1, 28, 28), t_start=START, seed=seed)
        return drawn.to(self.settings.device)

    def ours(self, name: str, x: Tensor, **budget: Any) -> Tensor:
        """The samples of one of our samplers, by its name in `OURS`."""
        row, grid = _row_of(name)
        more: dict[str, Any] = {"ems": self.ems} if row.wants else {}
        cond = {"label": self.labels[: len(x)]}
        more |= {"grid": grid, "cond": cond}
        return sample(self.model, x, SCHEDULE, sampler=row, t_start=START, t_end=END, **budget, **more)

    def theirs(self, name: str, x: Tensor, steps: int) -> Tensor:
        """The samples of a scheduler of diffusers, by its name in `PEERS`, with or without its lower last orders."""
        lowered = name.endswith(LOWERED)
        peer = PEERS[name.removesuffix(LOWERED)]
        peer = replace(peer, options=dict(peer.options) | {"lower_order_final": lowered})
        label = self.labels[: len(x)]

        def model(state: Tensor, t: Tensor) -> Tensor:
            return self.model(state, t.to(state.device), label=label)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path.of(SCHEDULE, times_of("log-snr", SCHEDULE, steps, START, END))
            return sample_with(peer, model, x, path).to(x.dtype)

    def quality(self, x: Tensor, seed: int) -> dict[str, float]:
        """Of samples against test images: three distances, and how often the judge sees the digit asked for."""
        return {
            "sliced_wasserstein": sliced_wasserstein(x, self.test[: len(x)], seed=seed),
            "mmd": mmd(x, self.test[: len(x)]),
            "classifier_frechet": frechet_distance(self.judge.features(x), self._seen[: len(x)]),
            "label_accuracy": self._accuracy(x),
        }


def measure(bench: Bench, out: File) -> list[dict[str, Any]]:
    """All rows, in <out>/rows.jsonl as they are finished; those that are there already are kept.

    Convolutions keep float32's digits: on a GPU torch's default would round their inputs to ten bits.
    """
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        return _measured(bench, out)


def _measured(bench: Bench, out: File) -> list[dict[str, Any]]:
    settings, file = bench.settings, out / "rows.jsonl"
    stamp = _stamp(bench)
    known = {(row["seed"], row["name"]): row for row in read_json_lines(file) if row["stamp"] == stamp}
    names = (*settings.names, *_peers(settings))
    for seed in settings.seeds:
        wanted = [name for name in (FLOOR, REFERENCE, COARSER, *names) if (seed, name) not in known]
        if not wanted:
            continue
        x = bench.noise(seed)
        ends = _reference(bench, x, seed, out)
        for name in wanted:
            began = time.perf_counter()
            row = {"seed": seed, "name": name, **_row(bench, name, x, ends, seed), "stamp": stamp}
            row["seconds"] = time.perf_counter() - began
            append_json(file, row)
            known[seed, name] = row
            say(f"seed {seed}: {name}")
    return [known[seed, name] for seed in settings.seeds for name in (FLOOR, REFERENCE, COARSER, *names)]


def _peers(settings: Settings) -> list[str]:
    return [PREFIX + name + said for name in settings.peers for said in ("", LOWERED)] if available() else []


def _stamp(bench: Bench) -> dict[str, Any]:
    free = ("seeds", "names", "peers", "device")
    kept = {name: value for name, value in asdict(bench.settings).items() if name not in free}
    return json.loads(json.dumps({**kept, "model": {k: bench.record.get(k) for k in ("step", "seed", "date")}}))


def _reference(bench: Bench, x: Tensor, seed: int, out: File) -> Tensor:
    """The ends of many steps from the first starts, kept in a file: it is the dearest part."""
    settings = bench.settings
    file = out / f"reference_{seed}_{settings.reference}_{bench.record.get('step', 0)}.npy"
    if file.exists():
        return torch.from_numpy(np.load(file)).to(x)
    ends = bench.ours("unipc-2", x[: settings.paired], steps=settings.reference)
    np.save(file, ends.cpu().numpy().astype(np.float32))
    return ends


def _row(bench: Bench, name: str, x: Tensor, ends: Tensor, seed: int) -> dict[str, Any]:
    paired, n = len(ends), bench.settings.samples
    if name == FLOOR:
        # Of the last training images, which no network has learnt; the digits are their own.
        part = bench.held[(seed * n) % (len(bench.held) - n + 1) :][:n]
        return {name: value for name, value in bench.quality(part, seed).items() if name != "label_accuracy"}
    if name == REFERENCE:
        return {"quality_of": paired, **bench.quality(ends, seed)}
    if name == COARSER:
        coarse = bench.ours("unipc-2", x[:paired], steps=bench.settings.reference // 2)
        return {"error": _rms(coarse, ends)}
    found: dict[str, Any] = {}
    for budget in bench.settings.budgets:
        made = _made(bench, name, x, budget)
        found[str(budget)] = (
            None if made is None else {"error": _rms(made[:paired], ends), **bench.quality(made, seed)}
        )  # fmt: skip
    return {"budgets": found}


def _made(bench: Bench, name: str, x: Tensor, budget: int) -> Tensor | None:
    if name.startswith(PREFIX):
        return bench.theirs(name.removeprefix(PREFIX), x, budget)
    return None if _row_of(name)[0].evaluations(1) > budget else bench.ours(name, x, nfe=budget)


def _row_of(name: str) -> tuple[Any, str]:
    """The sampler and the grid of a name in `OURS`."""
    name, _, grid = name.partition(", ")
    plain = name.removesuffix(" lowered")
    return sampler(plain, **({} if plain == name else {"lower_final": True})), grid or "log-snr"


def _rms(x: Tensor, y: Tensor) -> float:
    return float((x - y).double().square().mean().sqrt())


def _version() -> str | None:
    if not available():
        return None
    import diffusers

    return diffusers.__version__


def main(
    out: File | None = None, device: str | None = None, only: str | None = None, *, checkpoint: File | None = None,
    **changes: Any,
) -> int:  # fmt: skip
    """Measure, print the tables; rows, table and figure go to `out` (sciode-samplers-mnist).

    only: of the samplers, those whose name contains it; checkpoint: another model than the shipped one.
    """
    names = tuple(name for name in changes.pop("names", OURS) if (only or "") in name)
    peers = tuple(name for name in changes.pop("peers", THEIRS) if only is None)
    if not names:
        raise ValueError(f"only: no sampler of the table has {only!r} in its name")
    settings = Settings(names=names, peers=peers, device=str(choose_device(device or "auto")), **changes)
    out = out or File("sciode-samplers-mnist")
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(settings, checkpoint, out)
    rows = measure(bench, out)
    record = {
        "date": date.today().isoformat(), "torch": torch.__version__, "settings": asdict(settings),
        "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else settings.device,
        "diffusers": _version(), "model": bench.record, "judge_accuracy": bench.accuracy,
        "rows": rows,
    }  # fmt: skip
    (out / "samplers_mnist.json").write_text(json.dumps(record, indent=1) + "\n")
    from sciode.bench.samplers_mnist_tables import draw, show_tables

    show_tables(record)
    draw(record, out / "samplers_mnist.png")
    return 0
