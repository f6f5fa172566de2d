# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why naive neural SDEs fail, and what stable ones do about it
#
# A naive neural SDE $dz = f(t, z)\,dt + g(t, z)\,dW$ lets two networks do what they like. Three equations with less
# freedom were proposed in its place (Oh, Lim, Kim, ICLR 2024): Langevin, linear noise, geometric. Here is what their
# stability is, measured; and where it is less than its name.
#
# Needs no GPU and no network; about two minutes on a laptop.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats

from sciode import SDETerm, lab, solve
from sciode.data import Standardizer, drop, load
from sciode.lab import plots
from sciode.nn import mlp
from sciode.timeseries import Batch, ControlGrid, IrregularClassifier, StableFields, build
from sciode.training import isolated_rng

session = lab.setup(seed=0, device="cpu")
PATHS = lab.scale(full=4000, fast=1000)

# %% [markdown]
# ## One drift, four equations
#
# The drift $L z$ with $L = 1/2$ pushes apart what was together. With constant noise it is a naive SDE: all paths leave.
# The same drift under noise that is proportional to $z$, $\sigma = 1.3$: almost all paths come back. The geometric
# equation $dz = z\,(\gamma\,dt + \sigma\,dW)$ does the same and never crosses 0. The Langevin equation has the constant
# noise of the naive one: what holds it is that its drift is the slope of a well, $\gamma = -U'$, here with
# $U = (z^2 - 1)^2 / 2$.

# %%
L, SIGMA = 0.5, 1.3
EQUATIONS = {
    "naive": (lambda z, x: L * z, lambda z: torch.ones_like(z)),
    "Langevin": (lambda z, x: 2 * z * (1 - z**2) + x, lambda z: torch.ones_like(z)),
    "linear noise": (lambda z, x: L * z + x, lambda z: SIGMA * z),
    "geometric": (lambda z, x: z * (L * z.cos() + x), lambda z: SIGMA * z),
}


COLORS = dict(zip(EQUATIONS, ("C1", "C0", "C2", "C3"), strict=True))


def walk(name, start, times, x=0.0, dt=0.01):
    drift, noise = EQUATIONS[name]
    z = torch.full((PATHS, 1), start, dtype=torch.float64)
    term = SDETerm(lambda t, z: drift(z, x), lambda t, z: noise(z))
    return solve(term, z, times, dt=dt, method="euler", engine="eager", seed=session.seed).ys[..., 0]


# %%
horizon = torch.linspace(0, 12, 121, dtype=torch.float64)
walks = {name: walk(name, 1.0, horizon) for name in EQUATIONS}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), sharey=True)
for ax, (name, paths), color in zip(axes, walks.items(), COLORS.values(), strict=True):
    plots.fan(ax, horizon, paths[:, :60].T, color=color)
    ax.set_yscale("symlog", linthresh=1)
    ax.set(title=f"{name}: median |z(12)| {paths[-1].abs().median():.3g}", ylim=(-3000, 3000))
axes[0].set_ylabel("z(t)")
plt.show()

# %% [markdown]
# ## Lyapunov exponents against the bound $L - \sigma^2/2$
#
# Two paths under the same noise come together at a rate, the Lyapunov exponent. The theorem: for linear noise it is at
# most $L - \sigma^2/2$, $L$ the drift's Lipschitz constant, so noise with $\sigma^2/2 > L$ makes any drift forget its
# start. It is a theorem about **one** Brownian motion for all components. The models, and all code of theirs, have one
# **for each** component (diagonal noise), and that noise turns the difference about instead of shrinking it.
#
# We couple $H$ components through their mean, $\gamma(z) = L\,\bar z\,(1, \dots, 1)$, of Lipschitz constant $L$.

# %%
SIGMAS = torch.linspace(0, 1.5, 7, dtype=torch.float64)
SAMPLES, TIME = lab.scale(full=400, fast=100), lab.scale(full=20.0, fast=8.0)


def exponents(width, noise):
    """Return the exponent at each sigma and its standard error."""
    sigma = SIGMAS.repeat_interleave(SAMPLES).unsqueeze(1)
    g = (lambda t, z: (sigma * z).unsqueeze(-1)) if noise == "scalar" else (lambda t, z: sigma * z)
    term = SDETerm(lambda t, z: L * z.mean(1, keepdim=True).expand_as(z), g, noise=noise)
    apart = torch.ones(len(sigma), width, dtype=torch.float64)  # the equation is linear: a difference obeys it, too
    last = solve(term, apart, [0.0, TIME], dt=0.01, method="euler", engine="eager", seed=session.seed).ys[-1]
    rates = (last.norm(dim=1) / apart.norm(dim=1)).log().reshape(len(SIGMAS), SAMPLES) / TIME
    return rates.mean(1), rates.std(1) / SAMPLES**0.5


WIDTHS = (1, 2, 8, 32)
found = {noise: {width: exponents(width, noise) for width in WIDTHS} for noise in ("scalar", "diagonal")}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.8), sharey=True)
titles = ("one noise for all components", "a noise for each component")
for ax, title, curves in zip(axes, titles, found.values(), strict=True):
    for k, (width, (rate, error)) in enumerate(curves.items()):
        ax.errorbar(SIGMAS, rate, 2 * error, color=f"C{k}", marker="o", label=f"{width} components", lw=1.2)
    ax.plot(SIGMAS, L - SIGMAS**2 / 2, color="black", ls="--", label="$L - \\sigma^2/2$")
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(title=title, xlabel=r"$\sigma$")
axes[0].set_ylabel("Lyapunov exponent")
axes[1].legend()
plt.show()

# %% [markdown]
# On the left all curves are one. On the right the bound is broken as soon as there are two components, and with 32 the
# noise does nothing for stability: the exponent stays near $L$. What does hold with diagonal noise follows from Ito's
# formula: with $u$ the direction of the difference, the noise contributes $\sigma^2 (1/2 - \sum_i u_i^4)$, and
# $\sum_i u_i^4 \ge 1/H$, so
#
# $$\text{exponent} \le L + \sigma^2\,(1/2 - 1/H),$$
#
# which is the theorem for $H = 1$ and promises no contraction for more, whatever σ. Where components do not influence
# one another's drift, each is one-dimensional and contracts by the theorem.

# %%
rows = []
for width, (rate, error) in found["diagonal"].items():
    limit = L + SIGMAS**2 * (0.5 - 1 / width)
    rows.append([width, float(rate[-1]), float(error[-1]), float(L - SIGMAS[-1] ** 2 / 2), float(limit[-1])])
columns = ["components", "exponent at sigma = 1.5", "standard error", "scalar bound", "what holds"]
pd.DataFrame(rows, columns=columns).round(2)

# %% [markdown]
# ## The law that Langevin's equation goes to
#
# With constant σ and $\gamma = -U'$ the law of $z(t)$ goes to the Gibbs law, of density proportional to
# $\exp(-2U/\sigma^2)$. All paths start in the right-hand well; Kolmogorov's distance says how far they still are.

# %%
moments = torch.tensor([0.0, 0.3, 1.0, 3.0, 15.0], dtype=torch.float64)
well = walk("Langevin", 1.0, moments)
grid = np.linspace(-3, 3, 2001)
gibbs = np.exp(-((grid**2 - 1) ** 2))
gibbs /= gibbs.sum() * (grid[1] - grid[0])
cumulated = np.cumsum(gibbs) * (grid[1] - grid[0])
distances = [stats.kstest(z.numpy(), lambda v: np.interp(v, grid, cumulated)).statistic for z in well]
figure, axes = plt.subplots(1, 4, figsize=(13, 2.9), sharey=True)
for ax, t, z, distance in zip(axes, moments[1:], well[1:], distances[1:], strict=True):
    ax.hist(z.numpy(), bins=50, range=(-2.5, 2.5), density=True, color="C0", alpha=0.4)
    ax.plot(grid, gibbs, color="black", lw=1.2)
    ax.set(title=f"t = {t:g}, distance {distance:.3f}", xlabel="z", xlim=(-2.5, 2.5), ylim=(0, 1.35))
axes[0].set_ylabel("density")
plt.show()

# %% [markdown]
# ## Signs
#
# $dz = z\,(\gamma\,dt + \sigma\,dW)$ keeps every sign, in continuous time; in steps, as long as $\sigma\sqrt{dt}$ is
# small. The code of the authors runs a *clipped* form, $dz = \tanh(\gamma \tanh z)\,dt + \tanh(s\,\sigma z)\,dW$,
# which is no longer geometric. One might expect it to lose signs, too. It does not, because drift and noise still
# vanish at 0. We give both forms the same random network, set $\sigma = 1$, and count the components whose sign is not
# that of the start.


# %%
def share_of_changed_signs(form, dt, time=4.0):
    with isolated_rng(session.seed):
        net = StableFields(2, 16, layers=2, form=form, equation="geometric").double().requires_grad_(False)
    net.sigma[0][-1].weight.zero_()
    net.sigma[0][-1].bias.fill_(1.0)
    steps = round(time / dt)
    generator = torch.Generator().manual_seed(session.seed)
    z = torch.randn(200, 16, generator=generator, dtype=torch.float64) / 2
    tables = net.tables(torch.zeros(200, steps + 1, 2, dtype=torch.float64), dt)
    ts = torch.arange(0, steps + 1, max(steps // 40, 1)) * dt
    options = {"dt": dt, "method": "euler", "engine": "eager", "seed": session.seed}
    ys = solve(net.term(), z, ts, args=tables, **options).ys
    return ts, (ys.sign() != z.sign()).double().mean((1, 2))


signs = {
    "paper, steps of 0.01": share_of_changed_signs("paper", 0.01),
    "paper, steps of 0.5": share_of_changed_signs("paper", 0.5),
    "clipped, steps of 0.01": share_of_changed_signs("clipped", 0.01),
    "clipped, steps of 0.5": share_of_changed_signs("clipped", 0.5),
}

# %%
figure, ax = plt.subplots()
for name, (ts, share) in signs.items():
    ax.plot(ts, share, label=name, color="C0" if "paper" in name else "C3", ls="-" if "0.5" in name else "--")
ax.set(xlabel="time", ylabel="share of signs changed", title="The geometric form, paper and code")
ax.legend()
plt.show()

# %% [markdown]
# ## How far a shift of the input moves the law
#
# Wasserstein's distance between the laws of $z(t)$ before and after the input is shifted by 0.2. First the start alone
# is shifted: is it forgotten? Then the control $x$ alone: how far does the law go? (A naive SDE sees the input at its
# start and then never again, so a shift later than that moves nothing.) Of the second we show $\tanh z$, too, because a
# read-out begins with tanh.

# %%
SHIFT, X = 0.2, 0.2
later = torch.linspace(0, 20, 101, dtype=torch.float64)


def wasserstein(a, b):
    """Between two samples [T, n] of one dimension: the mean distance of their sorted values."""
    return (a.sort(1).values - b.sort(1).values).abs().mean(1)


start, control, output, twins = {}, {}, {}, {}
for name in lab.progress(EQUATIONS, "equations"):
    plain = walk(name, 1.0, later, X, dt=0.02)
    other = walk(name, 1.0 + SHIFT, later, X, dt=0.02)
    start[name], twins[name] = wasserstein(plain, other), float((plain - other)[-1].abs().median())
    if name != "naive":
        moved = walk(name, 1.0, later, X + SHIFT, dt=0.02)
        control[name] = wasserstein(plain, moved)
        output[name] = wasserstein(plain.tanh(), moved.tanh())

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
titles = ("start shifted: state", "control shifted: state", "control shifted: tanh(state)")
for ax, title, curves in zip(axes, titles, (start, control, output), strict=True):
    for name, distance in curves.items():
        ax.plot(later, distance, label=name, color=COLORS[name])
    ax.set(title=title, xlabel="t")
# For linear noise the means' distance, which bounds Wasserstein's from below, is known: it grows like exp(L t).
mean_gap = SHIFT * (L * later).exp()
axes[0].plot(later, mean_gap, ":", color=COLORS["linear noise"], lw=3, label="linear noise: means")
axes[0].set(yscale="log", ylabel="Wasserstein distance", ylim=(1e-5, 1e4))
axes[1].set_yscale("log")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# *Left.* The naive state never forgets its start: the distance grows like $e^{Lt}$. In Langevin's well it is forgotten.
# For linear noise the picture is a lesson in heavy tails. Half of the paths are within a thousandth of their shifted
# twins, which walk under the same noise; but the true means drift apart as fast as the naive ones (dotted), carried by
# paths that are rarer and rarer, until hardly a sample holds one. Noise stabilises paths, not moments.
#
# *Middle.* So Wasserstein's distance of the state stays bounded for Langevin only. Noise proportional to the state
# leaves tails so heavy that the mean of $|z|$ is many times the median, and a shift moves such a law ever further.
#
# *Right.* A read-out through tanh does not see the tails, and there the distance stays below 0.25 for all three. That
# is the sense in which these equations are robust, and the reason to read them out through something bounded, as the
# models do.
#
# ## Networks as they are
#
# Now the models themselves: random weights, three draws of them, each driven by a series of BasicMotions stretched over
# a longer and longer time. The root mean square of the state, in the form of the paper and in the clipped form that is
# trained by default.

# %%
series, _ = load("BasicMotions", split="train")
one = Standardizer.fit(series).transform(series)[[25]]
LONGEST, DT, COPIES = lab.scale(full=60.0, fast=30.0), 0.1, 32
CLOCK = torch.arange(0.0, LONGEST + 1e-9, LONGEST / 30, dtype=torch.float64)


def sizes(name, form, seed):
    """Return the rms state at the times of CLOCK, NaN from where a path has left the numbers."""
    grid = ControlGrid(99.0, round(LONGEST / DT), LONGEST)
    control, ends = grid.controls(one)
    values, times = (torch.from_numpy(x).repeat(COPIES, *[1] * (x.ndim - 1)) for x in one.padded())
    batch = Batch(values.float(), times * grid.rate, control.repeat(COPIES, 1, 1), grid.dt, ends.repeat(COPIES))
    with torch.no_grad():
        paths = build(name, 6, 16, form=form, seed=seed)(batch, CLOCK.expand(COPIES, -1), torch.arange(COPIES))
    size = paths.states.double().square().mean((0, 2)).sqrt()
    # A path that has left the numbers stays at its last good state.
    stopped = (paths.states.diff(dim=1) == 0).all(2).any(0).cumsum(0) > 0
    size[1:] = torch.where(stopped, torch.nan, size[1:])
    return size


NAMES = {"nsde": "naive", "lsde": "Langevin", "lnsde": "linear noise", "gsde": "geometric"}
FORMS, WEIGHTS = ("paper", "clipped"), range(session.seed, session.seed + lab.scale(full=3, fast=1))
grown = {form: {name: [sizes(name, form, s) for s in WEIGHTS] for name in NAMES} for form in FORMS}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.8), sharey=True)
for ax, (form, models) in zip(axes, grown.items(), strict=True):
    for (name, curves), color in zip(models.items(), COLORS.values(), strict=True):
        for k, size in enumerate(curves):
            ax.plot(CLOCK, size, color=color, lw=1.2, label=NAMES[name] if k == 0 else None)
            if bool(size.isnan().any()):
                last = int((size < 1e4).nonzero()[-1])
                ax.plot(CLOCK[last], size[last], "x", color=color, ms=8)
    ax.set(title=f'form="{form}" (cross: infinite after this)', xlabel="time", yscale="log", ylim=(0.1, 1e4))
axes[0].set_ylabel("root mean square of z")
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# A random network is no well and knows no bound on its Lipschitz constant, so the paper's equations are not safe by
# themselves: the geometric one, whose drift is $z$ times an unbounded network, leaves the numbers first of all.
# Clipping bounds everything, the naive model included, to growth in proportion to time. That is where most of the calm
# of a trained model comes from.
#
# ## What the control path is worth
#
# Now we train. The naive SDE and the neural CDE stand for the two halves of a stable neural SDE: noise without the
# series' path, and the path without noise. BasicMotions' official test part, readings missing at random in training and
# test.

# %%
(train, names), (test, truth) = load("BasicMotions", split="train"), load("BasicMotions", split="test")
RATES, SEEDS = lab.scale(full=(0.0, 0.5, 0.8), fast=(0.8,)), lab.scale(full=3, fast=1)
TRAINED = {"nsde": "naive SDE", "ncde": "path, no noise", "lnsde": "linear noise"}
OPTIONS = {"hidden": 32, "steps": 50, "epochs": lab.scale(full=40, fast=6), "lr": 8e-3, "n_samples": 4}
OPTIONS |= {"engine": "eager"}  # networks this small are trained before they would be compiled
scores = []
for rate in lab.progress(RATES, "missing rates"):
    for model, name in TRAINED.items():
        for seed in range(session.seed, session.seed + SEEDS):
            lossy = [drop(part, rate, seed=10 * seed + k) for k, part in enumerate((train, test))]
            fitted = IrregularClassifier(model=model, random_state=seed, **OPTIONS).fit(lossy[0], names)
            scores.append((name, rate, fitted.score(lossy[1], truth)))
scores = pd.DataFrame(scores, columns=["model", "missing", "accuracy"])

# %%
figure, ax = plt.subplots()
for k, name in enumerate(TRAINED.values()):
    own = scores[scores.model == name].groupby("missing").accuracy
    ax.errorbar(own.mean().index, own.mean(), own.std(), marker="o", capsize=3, label=name, color=("C1", "C4", "C2")[k])
ax.axhline(0.25, color="0.6", lw=0.8, ls="--", label="guessing")
ax.set(xlabel="share of readings missing", ylabel="accuracy, official test part", ylim=(0, 1.05))
ax.legend()
plt.show()

# %% [markdown]
# The naive SDE guesses at every rate: nothing of a series reaches it but the first readings, and no equation can mend
# that. The path alone is most of the way; noise proportional to the state adds the rest.
#
# ## Noise that diffuses away
#
# What keeps a learned noise alive is the loss, not the equation. Data: an Ornstein–Uhlenbeck process seen at
# $t = 1/2, 1, 2$. A free drift and a free noise are trained on it twice: by the squared error of a draw, and by the
# energy score $|z - x| - |z - z'| / 2$ of two draws, whose minimum is the true law. The squared error of a draw is
# squared bias plus *variance*: it is cheapest without noise.

# %%
WAYS = {"squared error": 1, "energy score, two draws": 2}
TIMES, RATE, TRUE = torch.tensor([0.0, 0.5, 1.0, 2.0]), 1.0, 0.8


def observed(seed, count=128):
    """Return starts [n, 1] and later values [3, n, 1] of the process, by its exact law."""
    draw = torch.Generator().manual_seed(seed)
    rows = [2 * torch.randn(count, 1, generator=draw)]
    for gap in TIMES.diff():
        kept = torch.exp(-RATE * gap)
        spread = TRUE * ((1 - kept**2) / (2 * RATE)).sqrt()
        rows.append(kept * rows[-1] + spread * torch.randn(count, 1, generator=draw))
    return rows[0], torch.stack(rows[1:])


# %%
def learn(draws, steps):
    with isolated_rng(session.seed):
        drift, noise = mlp([1, 32, 1], torch.nn.SiLU), mlp([1, 32, 1], torch.nn.SiLU)
    term = SDETerm(lambda t, z: drift(z), lambda t, z: torch.nn.functional.softplus(noise(z)))
    optimizer = torch.optim.Adam([*drift.parameters(), *noise.parameters()], 1e-2)
    levels, options = [], {"dt": 0.1, "method": "euler", "engine": "eager", "adjoint": "direct"}
    for step in range(steps):
        start, x = observed(step)
        z = solve(term, start.repeat(draws, 1), TIMES, seed=step, **options).ys[1:].unflatten(1, (draws, -1))
        far = z - x.unsqueeze(1)
        loss = far.square().mean() if draws == 1 else far.abs().mean() - 0.5 * (z[:, 0] - z[:, 1]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        levels.append(float(term.diffusion(0.0, start).detach().mean()))
    return levels


levels = {name: learn(draws, lab.scale(full=400, fast=60)) for name, draws in WAYS.items()}

# %%
figure, ax = plt.subplots()
for name, level in levels.items():
    ax.plot(level, label=name)
ax.axhline(TRUE, color="black", lw=1, ls="--", label="true noise")
ax.set(xlabel="training step", ylabel="mean noise g(z)", ylim=(0, 1.6), title="What the loss does to the noise")
ax.legend()
plt.show()

# %% [markdown]
# ## What must be true

# %%
rate, error = found["scalar"][1]
assert bool((rate < L - SIGMAS**2 / 2 + 4 * error + 0.05).all())  # 0.05: Euler's own bias at these steps
rate, error = found["diagonal"][8]
contracting = L < SIGMAS**2 / 2
assert bool((rate - 4 * error > L - SIGMAS**2 / 2)[contracting].all())  # the scalar bound is broken
for width, (rate, error) in found["diagonal"].items():
    assert bool((rate < L + SIGMAS**2 * (0.5 - 1 / width) + 4 * error + 0.05).all())
assert distances[-1] < 1.95 / PATHS**0.5 + 0.01 < distances[1]
for form in FORMS:  # signs are kept in small steps by both forms, in large ones by neither
    small, large = (float(signs[f"{form}, steps of {dt}"][1].max()) for dt in (0.01, 0.5))
    assert small == 0 < large

# %%
assert float(walks["naive"][-1].abs().median()) > 10 > float(walks["linear noise"][-1].abs().median())
assert bool(walks["geometric"].gt(0).all())
torch.testing.assert_close(start["naive"], SHIFT * (L * later).exp(), rtol=0.1, atol=0.0)
assert float(start["Langevin"][-1]) < 0.02 * SHIFT and float(control["Langevin"].max()) < 0.4
assert float(control["linear noise"][-1]) > 50 * float(control["Langevin"][-1])
assert twins["linear noise"] < 1e-3 < SHIFT < twins["naive"]
assert float(walks["linear noise"][-1].abs().mean() / walks["linear noise"][-1].abs().median()) > 10
assert max(float(moved.max()) for moved in output.values()) < 0.25
for size in (size for curves in grown["clipped"].values() for size in curves):
    assert bool((size <= size[0] + CLOCK + CLOCK.sqrt()).all())  # drift and noise of at most 1
assert all(bool(size[-1].isnan()) for size in grown["paper"]["gsde"])
if not lab.fast():
    mean = scores.groupby("model").accuracy.mean()
    assert mean["linear noise"] > mean["path, no noise"] > mean["naive SDE"] + 0.3
assert levels["squared error"][-1] < levels["energy score, two draws"][-1]
