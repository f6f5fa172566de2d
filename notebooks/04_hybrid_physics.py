# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Half physics, half network
#
# A pendulum swings in an unknown drag. Gravity we know; the friction we let a network learn, from a few noisy readings
# at irregular times. Then we read a formula off the network, and set it beside the truth.
#
# Needs no GPU and no network connection; about a minute on a laptop.

# %%
from statistics import fmean, stdev

import matplotlib.pyplot as plt
import torch
from torch import nn

from sciode import lab, solve
from sciode.distill import distill
from sciode.lab import plots
from sciode.lab.tables import mean_sd
from sciode.nn import Autonomous, Hamiltonian, Hybrid, Joined, Mechanistic, mlp
from sciode.training import isolated_rng, threads

session = lab.setup(seed=0, device="cpu")
SEEDS = [session.seed + k for k in range(3)]

# %% [markdown]
# ## What is observed
#
# The truth is $\theta'' = -\frac{g}{\ell} \sin\theta - c_1 v - c_2\, v|v|$ with $v = \theta'$. Twelve swings are
# released at rest from known angles; angle and rate are then read at 20 times each, every swing at times of its own.

# %%
GRAVITY, LENGTH, LINEAR, QUADRATIC, NOISE = 9.81, 1.0, 0.2, 0.1, 0.03


def swing(t, y, gravity, length):
    return torch.stack((y[..., 1], -gravity / length * y[..., 0].sin()), -1)


def friction(v):
    return -LINEAR * v - QUADRATIC * v * v.abs()


def truth(t, y):
    return swing(t, y, GRAVITY, LENGTH) + torch.stack((torch.zeros_like(y[..., 0]), friction(y[..., 1])), -1)


draw = torch.Generator().manual_seed(session.seed)
start = torch.stack((torch.linspace(0.4, 2.8, 12), torch.zeros(12)), -1)
later = (3 * torch.rand(20, 12, generator=draw, dtype=torch.float64)).sort(0).values
times = torch.cat((torch.zeros(1, 12, dtype=torch.float64), later))
exact = solve(truth, start, times, batch_dims=1, engine="eager").ys
seen = exact + NOISE * torch.randn(exact.shape, generator=draw)
seen[0] = start

# %%
figure, ax = plt.subplots(figsize=(8, 3.2))
for k in (2, 11):
    fine = torch.linspace(0, 3, 200)
    line = solve(truth, start[k], fine, engine="eager").ys[:, 0]
    plots.series(ax, times[:, k], seen[:, k, 0], path=(fine, line), unit="time (s)")
_ = ax.set(ylabel="angle (rad)", title="two of the twelve swings: readings, and the true motion")

# %% [markdown]
# ## Two models of the same data
#
# - a **plain** neural ODE $y' = f_\theta(y)$, which has to learn gravity, too;
# - a **hybrid** field: the known pendulum, plus a network that sees the rate and corrects the rate. It starts at zero:
#   before training the hybrid *is* the frictionless pendulum.
#
# The plain one is trained on pieces of five readings (a whole swing is too long for a field that knows nothing), the
# hybrid on whole swings. Three seeds each. The data are few and whole, so L-BFGS, which looks at all of them in every
# step, needs far fewer steps than Adam.


# %%
def plain_field():
    return Autonomous(mlp([2, 32, 32, 2], nn.Tanh))


def hybrid_field():
    known = Mechanistic(swing, fixed={"gravity": GRAVITY, "length": LENGTH})
    drag = Autonomous(mlp([1, 16, 16, 1], nn.SiLU))
    return Hybrid(known, drag, names=("angle", "rate"), reads=("rate",), corrects=("rate",))


def pieces(size):
    begins = range(0, len(seen) - size, size)
    return [torch.cat([x[b : b + size + 1] for b in begins], 1) for x in (times, seen)]


# %%
def minimise(field, loss, steps):
    search = torch.optim.LBFGS(field.parameters(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        value = loss()
        value.backward()
        return value

    search.step(closure)
    return field.requires_grad_(False)


def train(field, size, steps):
    ts, target = pieces(size)

    def loss():
        found = solve(field, target[0], ts, method="rk4", dt=0.125, batch_dims=1, engine="eager").ys
        return ((found - target)[1:] / torch.tensor([1.0, 3.0])).square().mean()

    return minimise(field, loss, steps)


# %%
plains, hybrids = [], []
for seed in SEEDS:
    with isolated_rng(seed), threads(1):
        plains.append(train(plain_field(), 5, steps=lab.scale(full=200, fast=20)))
        hybrids.append(train(hybrid_field(), 20, steps=lab.scale(full=60, fast=30)))

# %% [markdown]
# ## Which one can be trusted beyond the data?
#
# Four swings that were not in the data, more than three times as long as those that were.

# %%
fresh = torch.tensor([[2.5, 0.0], [-2.0, 0.0], [-1.2, 0.0], [0.7, 0.0]])
clock = torch.linspace(0, 10, 201)
wanted = solve(truth, fresh, clock, engine="eager").ys
runs = {
    name: torch.stack([solve(field, fresh, clock, engine="eager").ys for field in fields])
    for name, fields in {"plain": plains, "hybrid": hybrids}.items()
}
errors = {name: [float(((ys - wanted)[..., 0]).square().mean().sqrt()) for ys in run] for name, run in runs.items()}
for name, found in errors.items():
    print(f"{name}: RMS error of the angle {mean_sd(found)} rad ({len(found)} seeds)")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
for ax, (name, color) in zip(axes, {"plain": "C1", "hybrid": "C0"}.items(), strict=True):
    for k, ys in enumerate(runs[name]):
        ax.plot(clock, ys[:, 0, 0], color=color, linewidth=1.2, label=f"{name}, {len(SEEDS)} seeds" if k == 0 else None)
    ax.plot(clock, wanted[:, 0, 0], "--", color="black", linewidth=1.2, label="truth")
    ax.axvspan(3, 10, color="0.95", zorder=0)
    ax.text(9.9, -2.1, "beyond the data", ha="right", va="bottom", color="0.4")
    ax.set(xlabel="time (s)", title=name, ylim=(-2.2, 3.2))
    ax.legend(loc="upper right")
_ = axes[0].set_ylabel("angle (rad)")

# %% [markdown]
# ## The friction as a formula
#
# The hybrid's network is a function of one number. `distill` samples it where the data were, and looks for the shortest
# sum of library terms that explains it. A learned function misses the truth by more than noise, so a formula may lose
# one percent of $R^2$ for being short.

# %%
LIBRARY = ["1", "v", "v^2", "v^3", "v*abs(v)", "sin(v)"]
rates = exact[..., 1].reshape(-1, 1)
laws = [distill(field.residual, rates, LIBRARY, names=["v"], tolerance=1e-2) for field in hybrids]
print(f"truth:   {-LINEAR:g}*v - {QUADRATIC:g}*v*abs(v)")
for seed, law in zip(SEEDS, laws, strict=True):
    print(f"seed {seed}:  {law.expressions[0]}   (R² {law.score[0]:.4f})")

# %%
speed = torch.linspace(float(rates.min()), float(rates.max()), 200)[:, None]
learned = torch.stack([field.residual(torch.zeros(()), speed)[:, 0] for field in hybrids])
figure, ax = plt.subplots(figsize=(6, 3.4))
for k, line in enumerate(learned):
    ax.plot(speed, line, color="C0", linewidth=1.2, label=f"network, {len(SEEDS)} seeds" if k == 0 else None)
ax.plot(speed, laws[0](torch.zeros(()), speed), color="C1", label=f"formula, seed {SEEDS[0]}")
ax.plot(speed, friction(speed), "--", color="black", label="truth")
ax.plot(rates[:, 0], torch.full((len(rates),), -2.8), "|", color="0.6", markersize=6)
ax.set(xlabel="rate v (rad/s); ticks: where the data are", ylabel="friction (rad/s²)")
_ = ax.legend(loc="upper right")

# %% [markdown]
# ## A network that conserves
#
# Without friction the pendulum keeps its energy. A plain network knows nothing of that. A Hamiltonian network learns
# $H(q, p)$ and moves by $q' = \partial H/\partial p$, $p' = -\partial H/\partial q$, so *its* energy cannot change.
# Both see the same 300 states with noisy derivatives, have the same width, and then run for thirty seconds.

# %%
states = torch.stack((4 * torch.rand(300, generator=draw) - 2, 8 * torch.rand(300, generator=draw) - 4), -1)
slopes = swing(0, states, GRAVITY, LENGTH) + 0.1 * torch.randn(states.shape, generator=draw)


def regress(field):
    def loss():
        return (field(torch.zeros(()), states) - slopes).square().mean()

    return minimise(field, loss, steps=lab.scale(full=400, fast=150))


makes = {
    "plain": lambda: Autonomous(mlp([2, 32, 2], nn.Tanh)),
    "Hamiltonian": lambda: Hamiltonian(Joined(mlp([2, 32, 1], nn.Tanh))),
}
free = {name: [] for name in makes}
for name, make in makes.items():
    for seed in SEEDS:
        with isolated_rng(seed), threads(1):
            free[name].append(regress(make()))

# %%
long = torch.linspace(0, 30, 301)
release = torch.tensor([[1.5, 0.0]])
drifts = {}
figure, ax = plt.subplots(figsize=(7, 3.4))
for (name, fields), color in zip(free.items(), ("C1", "C0"), strict=True):
    lines = torch.stack([solve(field, release, long, engine="eager").ys[:, 0] for field in fields])
    energy = lines[..., 1] ** 2 / 2 - GRAVITY / LENGTH * (lines[..., 0].cos() - 1)
    drift = (energy - energy[:, :1]) / energy[:, :1]
    drifts[name] = (drift[:, -50:].mean(-1) - drift[:, :50].mean(-1)).abs().tolist()
    for k, line in enumerate(drift):
        ax.plot(long, 100 * line, color=color, linewidth=1, label=f"{name}, {len(SEEDS)} seeds" if k == 0 else None)
ax.set(xlabel="time (s)", ylabel="true energy, change (%)")
ax.margins(y=0.25)
_ = ax.legend(loc="upper left", ncols=2)
for name, found in drifts.items():
    print(f"{name}: mean energy, last 5 s against first 5 s: {100 * fmean(found):.2f} ± {100 * stdev(found):.2f} %")

# %% [markdown]
# The Hamiltonian networks' lines wave a little, because $H$ is not quite the true one, but they do not run away. How
# far a plain network drifts is luck of the seed.
#
# ## What can go wrong
#
# - **Two parts that explain the same.** Let the hybrid learn `length`, too, and read the angle: network and constant
#   compete. Give the residual as little to read as you can.
# - **Formulas outside the data.** `v*abs(v)` and `v^3` differ little on a short range: the ticks in the friction
#   picture say where the formula has been tried.
# - **Momenta.** A Hamiltonian network needs canonical momenta; with rates only, use `sciode.nn.Lagrangian`.
#
# References: Rackauckas et al., *Universal differential equations* (arXiv 2001.04385). Greydanus et al., *Hamiltonian
# neural networks* (arXiv 1906.01563). Brunton, Proctor, Kutz, *Discovering governing equations from data* (PNAS 2016).
#
# ## What must be true

# %%
with isolated_rng(session.seed):
    untrained = hybrid_field()
assert torch.equal(untrained(torch.zeros(()), start), swing(0, start, GRAVITY, LENGTH)), "the residual starts at zero"
assert max(errors["hybrid"]) < min(errors["plain"])
assert all({"v", "v*abs(v)"} == set(law.coefficients[0]) for law in laws), [law.expressions for law in laws]
own = free["Hamiltonian"][0].energy(solve(free["Hamiltonian"][0], release, long, engine="eager").ys)
assert float((own - own[0]).abs().max()) < 0.01 * GRAVITY, "a Hamiltonian network keeps its own energy"
assert max(drifts["Hamiltonian"]) < min(drifts["plain"])
