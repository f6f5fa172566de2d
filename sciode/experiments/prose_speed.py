"""How fast samples of `sciode train prose` are made and models trained, beside what the device's matrices could do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sciode.prose.objective import losses
from sciode.prose.pool import Pool, Reading
from sciode.prose.training import Course, Pupil
from sciode.training import append_json, derive_seed, isolated_rng

__all__ = ["matrix_rate", "speeds"]


def speeds(
    settings: Any, out: Path, pool: Callable[[Any, int], Pool], model: Callable[[Any], nn.Module]
) -> dict[str, Any]:
    """Samples made a second, and steps, samples and FLOP of training a second; also appended to <out>/speed.jsonl."""
    device = torch.device(settings.device)
    began = _now(device)
    made = pool(settings, settings.seeds[0])
    seconds = _now(device) - began
    drawn = len(made) + made.left_out
    record: dict[str, Any] = {"drawn": drawn, "kept": len(made), "seconds": seconds, "per_second": drawn / seconds}
    append_json(out / "speed.jsonl", record)
    record["matrix_rate"] = matrix_rate(device)
    with isolated_rng(0):
        net = model(settings).to(device)
    course = Course(batch=settings.batch, lr=1e-5, graph=settings.graph)
    generator = torch.Generator(device).manual_seed(derive_seed(0, 1))
    batch = made.batch(settings.batch, Reading(), generator)
    counter = FlopCounterMode(display=False)
    with counter:
        found = losses(net, batch)
        (found.data + found.symbols).backward()
    # What it leaves belongs to this stream, and graphs are recorded on another.
    del found
    net.zero_grad(set_to_none=True)
    pupil, steps = Pupil(net, course), 20
    for number in range(8):
        pupil.step(batch, 1e-5, number)
    began = _now(device)
    for number in range(steps):
        pupil.step(made.batch(settings.batch, Reading(), generator), 1e-5, 10 + number)
    a_step = (_now(device) - began) / steps
    rate = counter.get_total_flops() / a_step
    record |= {"step_seconds": a_step, "samples_per_second": settings.batch / a_step, "flop": counter.get_total_flops(),
               "flop_rate": rate, "of_matrix_rate": rate / record["matrix_rate"]}  # fmt: skip
    append_json(out / "speed.jsonl", record)
    return record


def matrix_rate(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """FLOP a second of products of square bfloat16 matrices; float32 ones of 512 on a CPU."""
    card = device.type == "cuda"
    size, kind = (size, torch.bfloat16) if card else (512, torch.float32)
    a, b = (torch.ones(size, size, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    began = _now(device)
    for _ in range(repeats):
        torch.mm(a, b)
    return 2 * size**3 * repeats / (_now(device) - began)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
