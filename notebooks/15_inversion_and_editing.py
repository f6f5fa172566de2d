# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From data to noise and back, and what to do in between
#
# A sampler of the probability-flow ODE carries noise to data. Run backwards it says which noise a picture came from;
# change something on the way, and the picture is edited. First: which way back is exact? Then: digits, inverted,
# repaired, completed and restored by a network that takes seconds to train.
#
# Needs no GPU and no network; a minute on a laptop, `pip install "sciode[lab]"`.

# %%
import warnings

import matplotlib.pyplot as plt
import torch

from sciode import lab
from sciode.bench.editing import CORRUPTIONS, classifier
from sciode.bench.restoring import corrupted, pixel_range
from sciode.diffusion import (
    MeasurementGuidance,
    VPLinear,
    initial_noise,
    invert,
    log_likelihood,
    round_trip,
    sample,
)  # fmt: skip
from sciode.diffusion.editing import Region, code, edit_regions, repaint, sdedit
from sciode.lab.scans import denoiser, scans
from sciode.testing import GaussianMixture

session = lab.setup(seed=0, device="cpu")
schedule = VPLinear()


# %%
def show_digits(rows, names, scale=0.55):
    """Rows of digits [n, 1, 8, 8], a name beside each."""
    size = (scale * len(rows[0]) + 1.4, scale * len(rows))
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=size)
    for line, row, name in zip(axes, rows, names, strict=True):
        for ax, digit in zip(line, row, strict=True):
            ax.imshow(digit[0], cmap="gray", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    plt.show()


# %% [markdown]
# ## Which way back is exact?
#
# On a mixture with its exact score. DDIM, or any other sampler, run backwards is as wrong as its steps are coarse.
# BDIA, EDICT and O-BELM are undone step by step, from the last state and one more beside it (`memory`): only rounding
# is left, times what the way back multiplies it by: 1 for BDIA with gamma = 1, more for EDICT with every step.

# %%
mixture = GaussianMixture.random(3, seed=0)
model, x = mixture.model(schedule), initial_noise(schedule, (16, 3), seed=1)
counts = lab.scale(full=(5, 10, 20, 40, 80, 160), fast=(5, 20, 80))
back = {}
for name in ("ddim", "dpm++-3m", "edict", "belm", "bdia"):
    for n in counts:
        with warnings.catch_warnings():
            # It says beforehand where rounding will be more than a thousandth.
            warnings.simplefilter("ignore", UserWarning)
            found = round_trip(model, x, schedule, sampler=name, steps=n)
        back[name, n] = float(found.rmse.square().mean().sqrt())

# %%
figure, ax = plt.subplots()
for name in ("ddim", "dpm++-3m", "edict", "belm", "bdia"):
    ax.loglog(counts, [back[name, n] for n in counts], "o-", label=name)
ax.set_xticks(counts, [str(n) for n in counts])
ax.minorticks_off()
ax.set(title="noise to data to noise, float32", xlabel="steps", ylabel="RMS error")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## A network for digits
#
# scikit-learn's digits, 8 x 8, and a small fully connected denoiser. Below: samples, and above them the digits that
# they should look like.

# %%
data = scans()
net = denoiser({"x": data.train}, steps=lab.scale(full=1500, fast=150), seed=session.seed, batch=256).network
with torch.no_grad():
    drawn = sample(net, initial_noise(schedule, (12, 1, 8, 8), seed=3), schedule, nfe=30)
show_digits([data.test[:12], drawn], ["data", "samples"])

# %% [markdown]
# ## Noise is a coordinate system
#
# Two real digits, inverted; great circles between their noises, sampled. The ends are the digits themselves.

# %%
pairs = [(0, 7), (3, 9), (4, 5)]
rows = []
for first, second in pairs:
    ends = data.test[[first, second]].double()
    found = invert(net.double(), ends, schedule, sampler="dpm++-2m", steps=60)
    a, b = found
    angle = torch.arccos((a * b).sum() / (a.norm() * b.norm()))
    shares = torch.linspace(0, 1, 9, dtype=torch.float64)
    between = [(torch.sin((1 - s) * angle) * a + torch.sin(s * angle) * b) / torch.sin(angle) for s in shares]
    rows.append(sample(net, torch.stack(between), schedule, sampler="dpm++-2m", steps=60).float())
net = net.float()
show_digits(rows, ["", "", ""])
apart = [max(float((row[i] - data.test[p]).abs().max()) for i, p in ((0, one), (-1, other)))
         for row, (one, other) in zip(rows, pairs, strict=True)]  # fmt: skip
print("largest difference at the ends:", [f"{a:.3f}" for a in apart])

# %% [markdown]
# ## How likely is a picture?
#
# The log-density along the same ODE, by the exact divergence, in bits per pixel. Corrupted digits are unlikely ones.

# %%
n = lab.scale(full=64, fast=10)
bits = {}
for name in ("clean", "two rows erased", "salt and pepper", "noise"):
    images = data.test[:n] if name == "clean" else corrupted(data.test[:n], CORRUPTIONS[name])
    how = log_likelihood(net, images, schedule, t_end=0.02, rtol=1e-3, atol=1e-3, divergence="hutchinson", probes=4)
    bits[name] = -how.log_prob / (64 * torch.log(torch.tensor(2.0)))
figure, ax = plt.subplots(figsize=(6, 2.6))
for place, values in enumerate(bits.values()):
    ax.plot(values, torch.full_like(values, place), "|", ms=14, color=f"C{place}")
ax.set(yticks=range(len(bits)), yticklabels=bits, ylim=(-0.6, len(bits) - 0.4))
ax.set_xlabel("bits per pixel, at t = 0.02 (less is likelier)")
plt.show()

# %% [markdown]
# ## Restore
#
# SDEdit adds noise up to a level and samples from there. CODE encodes by the ODE instead, clips on the way what no
# noisy digit could be, climbs the score at that level (`updates`), and decodes. Bounds can be those of every pixel:
# digits hardly ever reach into the corners. The higher the level, the less is left of the input.

# %%
broken = corrupted(data.test[:12], CORRUPTIONS["salt and pepper"], seed=2)
noisy = [sdedit(net, broken, schedule, level, steps=15, seed=1) for level in (0.1, 0.3)]
bounds = {"updates": 0, "steps": 12, "confidence": 1.0, "limit": pixel_range(data.train)}
confident = [code(net, broken, schedule, level, **bounds) for level in (0.1, 0.3)]
show_digits([data.test[:12], broken, *noisy, *confident],
            ["clean", "broken", "SDEdit, 0.1", "SDEdit, 0.3", "CODE, 0.1", "CODE, 0.3"])  # fmt: skip

# %%
judge, count = classifier(data), lab.scale(full=250, fast=100)
many = corrupted(data.test[-count:], CORRUPTIONS["salt and pepper"], seed=2)
labels = data.test_labels[-count:]
levels = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
curves = {"SDEdit": [], "CODE": []}
for level in levels:
    for name in curves:
        found = (sdedit(net, many, schedule, level, steps=12, seed=1) if name == "SDEdit"
                 else code(net, many, schedule, level, **bounds))  # fmt: skip
        curves[name].append((float((found - many).square().mean().sqrt()), judge(found, labels)))
figure, ax = plt.subplots()
for name, line in curves.items():
    ax.plot(*zip(*line, strict=True), "o-", label=name)
ax.axhline(judge(many, labels), color="k", ls=":", lw=1, label="the input")
ax.set(title="salt and pepper", xlabel="distance from the input (RMS)", ylabel="classified rightly", ylim=(0, 1))
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## Complete, and measure
#
# RePaint keeps known pixels at every noise level and takes each step several times. Guidance by a measurement pulls
# the data prediction towards what was measured, through the network: here 4 x 4 averages, the posterior of digits
# given a quarter of their resolution. Regional energies pull only where a mask says so: here the lower half darker.

# %%
known = (torch.arange(8)[:, None] < 4).expand(8, 8)
shown = data.test[:12]
completed = repaint(net, shown, known, schedule, repeats=lab.scale(full=10, fast=4), steps=lab.scale(full=40, fast=20),
                    seed=5)  # fmt: skip


def coarse(x):
    return torch.nn.functional.avg_pool2d(x, 2)


def log_prob(x0, t):
    left = schedule.sigma(t) ** 2 / 4
    return -0.5 * (coarse(x0) - coarse(shown)).square().flatten(1).sum(1) / (0.05**2 + left)


# %%
noise = initial_noise(schedule, (12, 1, 8, 8), seed=6)
sharp = sample(net, noise, schedule, steps=lab.scale(full=60, fast=30), guidance=MeasurementGuidance(log_prob))
below = Region((~known).float(), lambda x0, t: (x0 + 1).square().sum((1, 2, 3)), 0.3)
with torch.no_grad():
    start = invert(net, shown, schedule, sampler="ddim", steps=100)
    edited = edit_regions(net, start, schedule, [below], steps=100)
masked = torch.where(known, shown, torch.tensor(0.0))
wide = torch.nn.functional.interpolate(coarse(shown), scale_factor=2.0)
show_digits([shown, masked, completed, wide, sharp, edited],
            ["data", "upper half", "RePaint", "4 x 4", "guided", "region"])  # fmt: skip

# %% [markdown]
# Where to go on: `FeatureSharing` records attention values of an inversion and puts them into another run (RF-Edit);
# `TimeTravel` and `RegionalNoise` are DiffEditor's other tools; `sciode bench editing` compares CODE and SDEdit on
# five corruptions at equal distance.
#
# ## What must be true

# %%
most = counts[-1]
assert back["bdia", most] <= 1e-6, "exact inversion keeps to rounding"
assert back["ddim", most] > 100 * back["bdia", most] and back["edict", most] > back["bdia", most]
assert max(apart) < 0.2, "inverted digits come back"
assert bits["clean"].mean() < min(bits[name].mean() for name in bits if name != "clean")
assert torch.equal(completed[..., :4, :], shown[..., :4, :])
plain = sample(net, noise, schedule, steps=30)
assert (coarse(sharp) - coarse(shown)).square().mean() < 0.1 * (coarse(plain) - coarse(shown)).square().mean()
assert edited[..., 4:, :].mean() < shown[..., 4:, :].mean()
