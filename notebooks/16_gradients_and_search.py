# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradients through samplers, and samplers made to measure
#
# A sample is a function of its noise, of what it is conditioned on and of the network's weights. Four ways to
# differentiate it, what each costs, and what each is the gradient of. Then the other direction: not the noise is
# optimised but the sampler, step by step, until five evaluations do what others need ten for.
#
# Data are mixtures whose exact score is the network, so that every error is the sampler's. Needs no GPU and no
# network; some minutes on a laptop, `pip install "sciode[lab]"`.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab
from sciode.bench.sampling import SmallUnet
from sciode.diffusion import Adjoint, Checkpoint, VPLinear, estimate_ems, sample
from sciode.diffusion.search import Search, paired_error, search
from sciode.lab.tables import show, table
from sciode.testing import GaussianMixture, PeakMemory

session = lab.setup(seed=0, device="cpu")
schedule = VPLinear()

# %% [markdown]
# ## Move the noise until the sample is where you want it
#
# The loss is the distance of a sample from a target. Its gradient with respect to the noise goes back through all
# forty evaluations.

# %%
mixture = GaussianMixture.random(2, seed=3, spread=1.5, deviations=(0.15, 0.45))
model = mixture.model(schedule)
draw = torch.Generator().manual_seed(session.seed)
noise = torch.randn(6, 2, generator=draw, dtype=torch.float64).requires_grad_()
target = mixture.means[int(mixture.weights.argmax())]
optimizer, path = torch.optim.Adam([noise], lr=0.1), []
for _ in range(lab.scale(full=120, fast=20)):
    found = sample(model, noise, schedule, sampler="bdia", steps=40, gradient="reversible", return_info=True)
    loss = (found.x - target).square().sum(1)
    optimizer.zero_grad()
    loss.sum().backward()
    optimizer.step()
    path.append(found.x.detach())
path = torch.stack(path)
print(f"gradient by: {found.gradient}; distance {path[0].sub(target).norm(dim=1).mean():.2f} at first, "
      f"{path[-1].sub(target).norm(dim=1).mean():.3f} at the end")  # fmt: skip

# %%
figure, ax = plt.subplots(figsize=(5.6, 4.4))
cloud = mixture.draw(3000, seed=1)
ax.plot(*cloud.T, ".", ms=2, color="0.75", label="data")
for b in range(path.shape[1]):
    ax.plot(*path[:, b].T, lw=1.2, color=f"C{b}")
    ax.plot(*path[0, b], "o", color=f"C{b}")
ax.plot(*target, "k*", ms=12, label="target")
ax.set(title="samples while their noise is optimised", aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## What a gradient keeps in memory
#
# `gradient="direct"` keeps everything on autograd's tape. `"checkpoint"` keeps one state a step, or fewer
# (`Checkpoint(segment)`), and evaluates again. `"reversible"` keeps nothing: BDIA's steps are undone, exactly, from
# the end. All three give the same numbers. Here for a small U-Net with random weights.

# %%
with torch.random.fork_rng():
    torch.manual_seed(0)
    net = SmallUnet(16)
x = torch.randn(1, 1, 28, 28, generator=draw)
ways = {"direct": "direct", "checkpoint": "checkpoint", "checkpoint, 8 a segment": Checkpoint(8),
        "reversible": "reversible"}  # fmt: skip
counts = lab.scale(full=(4, 8, 16, 32, 64), fast=(3, 12))
peaks, tapes, gaps = {name: [] for name in ways}, {}, {}
for n in counts:
    for name, gradient in ways.items():
        start = x.clone().requires_grad_()
        with PeakMemory() as peak:
            last = sample(net, start, schedule, sampler="bdia", steps=n, gradient=gradient)
            grads = torch.autograd.grad(last.square().mean(), [start, *net.parameters()])
        peaks[name].append(peak.bytes / 2**20)
        tapes[n] = tapes.get(n, grads)
        gaps[name, n] = max(float((g - w).norm() / w.norm()) for g, w in zip(grads, tapes[n], strict=True))

# %%
figure, ax = plt.subplots()
for name, values in peaks.items():
    ax.loglog(counts, values, "o-", label=name)
ax.set_xticks(counts, [str(n) for n in counts])
ax.set_yticks(levels := [1, 2, 5, 10, 20, 50], [str(n) for n in levels])
ax.minorticks_off()
ax.set(title="most memory at a time", xlabel="steps", ylabel="MiB", ylim=(1, None))
ax.legend()
plt.show()
print("largest relative gap to the tape:", f"{max(gaps.values()):.1e}")

# %% [markdown]
# ## The gradient of what?
#
# `"adjoint"` solves the adjoint equation of the continuous flow, with a tolerance of its own. That is the gradient of
# the exact solution, not of the sampler's steps: the two differ by the sampler's error, and no tolerance helps.

# %%
start = torch.randn(4, 2, generator=draw, dtype=torch.float64)
grid, distance = lab.scale(full=(8, 16, 32, 64, 128), fast=(8, 16, 32)), {}
for rtol in (1e-3, 1e-8):
    for n in grid:
        grads = []
        for gradient in ("direct", Adjoint(rtol, 1e-2 * rtol)):
            leaf = start.clone().requires_grad_()
            last = sample(model, leaf, schedule, sampler="dpm++-2m", steps=n, t_end=0.05, gradient=gradient)
            grads.append(torch.autograd.grad(last.square().sum(), leaf)[0])
        distance[rtol, n] = float((grads[1] - grads[0]).norm() / grads[0].norm())
figure, ax = plt.subplots()
for rtol in (1e-3, 1e-8):
    ax.loglog(grid, [distance[rtol, n] for n in grid], "o-", label=f"rtol = {rtol:g}")
ax.loglog(grid, [distance[1e-8, grid[0]] * (grid[0] / n) ** 2 for n in grid], "k:", label="$N^{-2}$")
ax.set_xticks(grid, [str(n) for n in grid])
ax.minorticks_off()
ax.set(title="adjoint gradient beside that of the steps (DPM-Solver++ 2M)", xlabel="steps", ylabel="relative gap")
ax.legend()
plt.show()

# %% [markdown]
# ## A sampler made to measure
#
# With five evaluations asymptotic orders say little. A `Recipe` decides for every step: its time, what it
# interpolates (noise, data, or DPM-Solver-v3's mixture of both), through how many values, how derivatives are
# estimated, a relaxation, a corrector, and whether the first value needs an evaluation at all. `search` tries recipes,
# learns to predict their score from those that it has tried, and spends evaluations on those that look best.

# %%
data = GaussianMixture.random(3, seed=lab.scale(full=1, fast=0))
exact = data.model(schedule)
seen, unseen = (torch.randn(n, 3, generator=draw, dtype=torch.float64) for n in lab.scale((256, 512), (128, 128)))
ems = estimate_ems(exact, data.draw(512, seed=7), schedule, points=32, degree=12)
ends = [data.end_of_ode(z, schedule, 1.0, 1e-3, 1e-9) for z in (seen, unseen)]
score, judge = (paired_error(exact, z, schedule, reference=y, ems=ems)
                for z, y in zip((seen, unseen), ends, strict=True))  # fmt: skip
settings = lab.scale(full=Search(), fast=Search(stages=3, population=20, pool=8))
best = search(score, schedule, 5, mean=data.moments()[0].tolist(), settings=settings, seed=session.seed,
              kinds=lab.scale(full=("noise", "data", "ems"), fast=("ems",)))  # fmt: skip
print(f"{len(best.tried)} recipes tried, best error {best.score:.4f}, on unseen noise {judge(best.recipe):.4f}")

# %%
rivals = {}
for name in ("dpm-v3", "unipc-3", "unipc-2", "dpm++-2m", "dpm++-3m", "ipndm", "ddim"):
    for times in ("uniform", "quadratic", "log-snr", "middle", "karras", "beta"):
        more = {"ems": ems} if name == "dpm-v3" else {}
        y = sample(exact, unseen, schedule, sampler=name, grid=times, nfe=5, **more)
        rivals[name, times] = float((y - ends[1]).square().mean().sqrt())
ours, ranked = judge(best.recipe), sorted(rivals.items(), key=lambda row: row[1])
rows = [("searched", "its own", f"{ours:.4f}", f"{ours / ranked[0][1]:.2f}")]
rows += [(name, times, f"{e:.4f}", f"{e / ranked[0][1]:.2f}") for (name, times), e in ranked[:5]]
show(table("Five evaluations, unseen noise", ["sampler", "grid", "RMS error", "over the best rival"], rows))

# %%
errors = np.array([s for _, s in best.tried])
known = len(errors) - settings.stages * settings.population
figure, ax = plt.subplots()
ax.semilogy(errors, ".", ms=3, color="0.7", label="a recipe")
ax.semilogy(np.minimum.accumulate(errors), color="C1", label="best so far")
ax.axvline(known, color="k", lw=0.8, ls=":")
ax.text(known, ax.get_ylim()[1], " named samplers | search", ha="center", va="bottom", fontsize=8)
ax.set(xlabel="recipes tried", ylabel="RMS error on the noise it sees", ylim=(None, errors[np.isfinite(errors)].max()))
ax.legend()
plt.show()

# %% [markdown]
# What it found, step by step; `recipe.save(file)` keeps it as JSON, and `sample(..., sampler=Recipe.load(file))` runs
# it.

# %%
lams = schedule.half_log_snr(torch.tensor(best.recipe.times, dtype=torch.float64)).tolist()
rows = [(i, f"{a:+.2f} to {b:+.2f}", s.kind, s.nodes, "nearest" if s.nearest else "all", f"{s.relax:+.2f}", s.corrector)
        for i, (a, b, s) in enumerate(zip(lams, lams[1:], best.recipe.steps, strict=False))]  # fmt: skip
show(table("The recipe", ["step", "log-SNR", "of", "values", "derivatives from", "relaxed", "corrector"], rows))
print("first value without an evaluation:", best.recipe.first is not None)

# %% [markdown]
# ## What must be true

# %%
assert path[-1].sub(target).norm(dim=1).mean() < 0.5 * path[0].sub(target).norm(dim=1).mean()
assert max(gaps.values()) < 1e-5, "exact ways give the tape's gradient"
assert peaks["reversible"][-1] < 1.15 * peaks["reversible"][0], "and undoing steps keeps nothing"
assert peaks["direct"][-1] > 2 * peaks["reversible"][-1]
fine = [distance[1e-8, n] for n in grid]
assert all(b < 0.5 * a for a, b in pairwise(fine)), "the adjoint's gap falls with the steps"
assert best.score <= errors[:known].min() and ours < 0.8 * ranked[0][1]
