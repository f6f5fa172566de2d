# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Few steps: rectified flow and distillation
#
# However good the sampler, one step along a curved path goes astray. So the paths are made straight (rectified flow),
# or a student learns where they end (consistency, segment by segment or along sub-paths). All of it from one small
# model of 8 x 8 digits, trained here.
#
# Needs no GPU and no network; some minutes on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab
from sciode.diffusion import RectifiedFlow, initial_noise, sample
from sciode.diffusion.quality import sliced_wasserstein

session = lab.setup(seed=0, device="cpu")

# %%
from sciode.diffusion.training import (
    Segments,
    TrainOptions,
    consistency,
    pyramid,
    reflow_pairs,
    straighten,
    sub_paths,
    train,
)
from sciode.lab.digits import show_digits
from sciode.lab.scans import SCHEDULE as schedule
from sciode.lab.scans import denoiser, scans

flow_time = RectifiedFlow()

# %% [markdown]
# ## A teacher
#
# A diffusion transformer of a tenth of a million weights, with EDM's preconditioning and loss, told the digit nine
# times of ten. `denoiser` is ten lines around `build`, `Preconditioned` and `sciode.diffusion.training`.

# %%
data = scans(held=0).rows
trained = denoiser(data, "dit-digits", steps=lab.scale(full=4000, fast=200), seed=session.seed, width=48,
                   depth=lab.scale(full=3, fast=2), heads=3)  # fmt: skip
teacher = trained.network
print(f"{sum(p.numel() for p in teacher.parameters()):,} weights, {trained.seconds:.0f} s")

# %%
digits = torch.arange(200) % 10
noise = initial_noise(schedule, (200, 1, 8, 8), seed=1)
cond = {"cond": {"label": digits}}
with torch.no_grad():
    ends = sample(teacher, noise, schedule, sampler="unipc-3", nfe=20, **cond)
    once = sample(teacher, noise, schedule, sampler="ddim", steps=1, **cond)

figure, axes = plt.subplots(1, 3, figsize=(11, 2.4), layout="constrained")
axes[0].plot(*zip(*trained.losses, strict=True))
axes[0].set(xlabel="step", title="loss")
show_digits(axes[1], ends[:40], 10, "20 evaluations")
show_digits(axes[2], once[:40], 10, "one evaluation: the mean of each digit")
plt.show()

# %% [markdown]
# ## Straight paths
#
# Noise is paired with what the teacher makes of it, and the same network goes on as a flow between the two, in another
# time: `x_t = (1 - t) x_0 + t eps`. Both ends are hard, the middle is not, so that times are drawn from a U. The loss
# is pseudo-Huber's, and a premetric of the pictures themselves; the published recipe has LPIPS there, which needs
# trained weights and is not included.

# %%
pairs = reflow_pairs(
    teacher, schedule, (lab.scale(full=4000, fast=400), 1, 8, 8), seed=2, sampler="unipc-3", nfe=12,
    cond={"label": torch.arange(lab.scale(full=4000, fast=400)) % 10},
)  # fmt: skip
flow = copy.deepcopy(teacher).on(flow_time, "flow").requires_grad_(True)
options = TrainOptions(steps=lab.scale(full=3000, fast=150), batch_size=64, lr=1e-3, seed=session.seed)
flow = train(flow, straighten(premetric=pyramid(2)), pairs, options).network

# %% [markdown]
# How straight? On a straight path the flow is the same everywhere: here is how far it turns on the way, as a share of
# its length, before and after.

# %%
start = noise / float(schedule.sigma(1.0))


@torch.no_grad()
def turning(model, steps=16):
    # Distance between the flow along the path and the path's own chord, in the mean over times.
    grid = np.linspace(0.999, 0.02, steps)
    x, states, flows = start[:100], [], []
    for s, t in zip(grid, [*grid[1:], None], strict=True):
        states.append(x)
        flows.append(model(x, torch.full((100,), s), label=digits[:100]))
        x = x if t is None else x + (t - s) * flows[-1]
    chord = (states[0] - states[-1]) / (grid[0] - grid[-1])
    return float(((torch.stack(flows) - chord).square().mean() / chord.square().mean()).sqrt())


turns = {"teacher, as a flow": turning(teacher.on(flow_time, "flow")), "after reflow": turning(flow)}
print({name: round(value, 3) for name, value in turns.items()})

# %% [markdown]
# ## Students that know where paths end
#
# TSCD cuts the teacher's grid into segments. The student jumps to the lower edge of its segment, and has to land where
# it lands from one teacher's step further down. First two segments, then one, each student from the one before: with
# one segment it is consistency distillation. SLAM also asks on the straight sub-path between both ends of a step.

# %%
low, high = (float(schedule.half_log_snr(t)) for t in (1.0, 1e-3))
grid = [1.0, *schedule.t_of(torch.linspace(low, high, 9)).tolist()[1:-1], 1e-3]
options = TrainOptions(
    steps=lab.scale(full=1500, fast=60), batch_size=64, lr=1e-3, decay=0.95, warmup=20, seed=session.seed
)  # fmt: skip


def taught(student, loss):
    return train(copy.deepcopy(student).requires_grad_(True), loss, data, options).network


halves = taught(teacher, consistency(teacher, Segments(grid, 2), schedule, step="heun"))
whole = taught(halves, consistency(teacher, Segments(grid, 1), schedule, step="heun"))
along = taught(halves, sub_paths(teacher, Segments(grid, 1), schedule, step="heun"))

# %% [markdown]
# ## What one and two evaluations give
#
# Everybody starts from the same noise; distances are to the teacher's own ends after 20 evaluations.

# %%
euler = {"sampler": "ddim", "prediction": "flow", "t_start": 1.0, "t_end": 1e-3, "grid": "uniform", **cond}
with torch.no_grad():
    results = {
        ("teacher", 1): once,
        ("teacher", 2): sample(teacher, noise, schedule, sampler="ddim", steps=2, **cond),
        ("rectified flow", 1): sample(flow, start, flow_time, steps=1, **euler),
        ("rectified flow", 2): sample(flow, start, flow_time, steps=2, **euler),
        ("TSCD, 2 segments", 2): sample(halves, noise, schedule, sampler="ddim", grid=Segments(grid, 2).edges, **cond),
        ("TSCD, 1 segment", 1): sample(whole, noise, schedule, sampler="ddim", grid=[grid[0], grid[-1]], **cond),
        ("SLAM", 1): sample(along, noise, schedule, sampler="ddim", grid=[grid[0], grid[-1]], **cond),
    }
far = {name: float((x - ends).square().mean().sqrt()) for name, x in results.items()}
apart = {name: sliced_wasserstein(x, data["x"][:200]) for name, x in results.items()}
for name in results:
    print(f"{name[0]:18s} {name[1]} evaluations: {far[name]:.3f} from its end, {apart[name]:.3f} from digits")

# %%
figure, axes = plt.subplots(2, 4, figsize=(11, 3.6), layout="constrained")
for axis, (name, x) in zip(axes.flat, results.items(), strict=False):
    show_digits(axis, x[:40], 10, f"{name[0]}: {name[1]}")
show_digits(axes.flat[-1], ends[:40], 10, "teacher: 20")
plt.show()

# %% [markdown]
# The students give up what makes steps cheap to add: more steps of theirs need not come closer to the teacher. One run
# and one seed: read the pictures, not the third digit.
#
# ## What must be true

# %%
assert turns["after reflow"] < turns["teacher, as a flow"]
for name in (("rectified flow", 1), ("TSCD, 1 segment", 1), ("SLAM", 1)):
    assert far[name] < far["teacher", 1], name
for name in ("TSCD, 1 segment", "SLAM"):
    assert apart[name, 1] < apart["teacher", 1], name
assert far["TSCD, 2 segments", 2] < far["teacher", 2]
assert all(x.isfinite().all() for x in results.values())
