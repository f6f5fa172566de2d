# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Samplers: how far a few evaluations carry
#
# A diffusion model turns noise into data by an ordinary differential equation whose slope is a network. A sampler
# solves it, and every evaluation of the network costs. Here: what samplers promise (orders), what they keep with few
# evaluations (work against precision), and what that looks like (digits of a network that comes with sciode).
#
# Needs no GPU and no network; a minute or two on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab
from sciode.diffusion import VPLinear, estimate_ems, initial_noise, sample, sampler, samplers
from sciode.diffusion.networks import pretrained, pretrained_statistics
from sciode.lab.digits import show_digits
from sciode.testing import GaussianMixture

session = lab.setup(seed=0, device="cpu")
schedule = VPLinear()

# %% [markdown]
# ## The equation
#
# For a mixture of Gaussians the best possible network is known exactly, and so is where each start must end. Grey:
# paths of some starts on the plane. Colours: the same starts after six evaluations.

# %%
plane = GaussianMixture.random(2, seed=3, deviations=(0.1, 0.3))
model, starts = plane.model(schedule), initial_noise(schedule, (60, 2), seed=1, dtype=torch.float64)
exact = plane.end_of_ode(starts, schedule, 1.0, 1e-3, 1e-9)
times = np.linspace(1, 1e-3, 120)
path = [
    sample(model, starts[:25], schedule, sampler="unipc-3", grid=[1.0, *times[1 : k + 1]]) for k in range(3, 120, 4)
]

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharex=True, sharey=True)
for axis, name in zip(axes, ("ddim", "dpm++-2m", "unipc-3"), strict=True):
    axis.plot(*torch.stack([starts[:25], *path]).permute(2, 0, 1).numpy(), color="0.85", linewidth=0.7, zorder=0)
    made = sample(model, starts, schedule, sampler=name, nfe=6)
    axis.scatter(*exact.T, s=14, color="0.3", label="exact end")
    axis.scatter(*made.T, s=10, color="C1", label=f"{name}, 6 evaluations")
    axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## Orders
#
# A sampler of order p is 2^p times as accurate with twice the steps, once steps are small. Every name claims one in
# `samplers()`, and the tests measure it. Dashed: the slopes that are claimed.

# %%
mixture = GaussianMixture.random(3, seed=0)
model, start = mixture.model(schedule), initial_noise(schedule, (lab.scale(32, 16), 3), seed=2, dtype=torch.float64)
end = mixture.end_of_ode(start, schedule, 1.0, 1e-3)
statistics = estimate_ems(model, mixture.draw(1024, seed=7), schedule)


def error(name, **budget):
    more = {"ems": statistics} if name.startswith("dpm-v3") else {}
    return float((sample(model, start, schedule, sampler=name, **budget, **more) - end).square().mean().sqrt())


# %%
names = ("ddim", "dpm++-2m", "dpm++-3m", "unipc-3")
steps = (40, 80, 160, 320)
measured = {name: [error(name, steps=n) for n in steps] for name in names}

figure, axis = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
for i, (name, errors) in enumerate(measured.items()):
    claim = samplers()[name].order
    slope = np.log2(errors[-2] / errors[-1])
    axis.loglog(steps, errors, marker="o", color=f"C{i}", label=f"{name}: claims {claim}, measured {slope:.2f}")
    axis.loglog(steps, errors[-1] * (steps[-1] / np.array(steps)) ** claim, "--", color=f"C{i}", linewidth=0.8)
axis.set(xlabel="steps", ylabel="RMS error")
axis.set_xticks(steps, [str(n) for n in steps])
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# ## Few evaluations
#
# With five or ten evaluations nothing is asymptotic, and an order says little. What helps there is to know the model:
# `estimate_ems` measures, once a model, how its noise prediction changes along the way, and DPM-Solver-v3 uses it.

# %%
budgets = (5, 6, 8, 10, 15, 20, 40)
rivals = ("ddim", "dpm++-2m", "dpm++-3m", "unipc-3", "deis-tab-3", "edm-heun", "dpm-v3")
few = {name: [error(name, nfe=n) for n in budgets] for name in rivals}

figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, errors in few.items():
    axis.loglog(budgets, errors, marker=".", label=name, linewidth=2 if name == "dpm-v3" else 1)
axis.set(xlabel="evaluations", ylabel="RMS error", title="a smooth mixture in three dimensions")
axis.set_xticks(budgets, [str(n) for n in budgets], minor=False)
axis.minorticks_off()
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
plt.show()

# %% [markdown]
# One mixture is an anecdote: `sciode bench samplers` has four kinds with three seeds each, and diffusers' schedulers on
# the same grid and noise.
#
# ## Digits
#
# The same on a trained U-Net. It was trained on MNIST by `sciode train mnist_diffusion`, and comes with sciode, as do
# its statistics. All rows begin from the same noise, and are told the same digits; the last one is what they aim at.

# %%
unet, record = pretrained("mnist_unet")
ems = pretrained_statistics("mnist_unet")
count = lab.scale(full=20, fast=4)
noise, digits = initial_noise(schedule, (count, 1, 28, 28), seed=5), torch.arange(count) % 10


@torch.no_grad()
def draw(name, **how):
    if name.startswith("dpm-v3"):
        how |= {"ems": ems}
    return sample(unet, noise, schedule, sampler=sampler(name, **how.pop("options", {})), cond={"label": digits}, **how)


print({key: record[key] for key in ("data", "step", "date")})
aim = draw("unipc-2", steps=lab.scale(full=200, fast=25))

# %%
middling = {"grid": "middle", "options": {"lower_final": True}}
shown = {name: (name, {}) for name in ("ddim", "dpm++-2m", "dpm++-3m", "deis-tab-3", "dpm-v3")}
shown |= {f"{name}, middle": (name, middling) for name in ("dpm-v3", "unipc-asinh-2")}
made = {(shows, n): draw(name, nfe=n, **how) for shows, (name, how) in shown.items() for n in (6, 10)}
figure, axes = plt.subplots(len(shown) + 1, 2, figsize=(11, 6.4), layout="constrained")
for column, n in enumerate((6, 10)):
    for axis, name in zip(axes[:, column], shown, strict=False):
        distance = (made[name, n] - aim).square().mean().sqrt()
        show_digits(axis, made[name, n][:10], min(count, 10), f"{name}, {n} evaluations: {distance:.3f} from the aim")
    show_digits(axes[-1, column], aim[:10], min(count, 10), "many steps: the aim")
plt.show()

# %% [markdown]
# A number beside each: the root mean square distance of its pixels from the aim's. That is what a sampler is answerable
# for; how good the digits are is the network's affair. On the uniform grid DPM-Solver-v3 hardly wins here, for all its
# statistics of 2,048 images. On a grid that is dense in the middle of the log-SNR it does with few evaluations, and
# UniPC in asinh(alpha / sigma) with ten; there the last steps are the longest, and have lower orders. The table of
# `sciode bench samplers_mnist` has three seeds and both kinds of distances: see `notebooks/results`.
#
# ## What must be true

# %%
for name, errors in measured.items():
    assert np.log2(errors[-2] / errors[-1]) > samplers()[name].order - 0.3, name
assert few["dpm-v3"][0] < 0.55 * few["dpm++-2m"][0]
assert few["dpm++-3m"][-1] < few["dpm++-2m"][-1] < few["ddim"][-1]
distances = {name: float((made[name, 10] - aim).square().mean().sqrt()) for name in shown}
assert all(distances[name] < distances["ddim"] for name in shown if name != "ddim"), distances
