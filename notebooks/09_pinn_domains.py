# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Networks on the pieces of a domain, and what they have to agree in
#
# A physics-informed network is trained until an equation holds at many points. Cut the domain, give each piece its own
# network, and something new has to be said: what two networks agree in where their pieces meet. Here such interface
# conditions are data, and any number of choices of them, "arms", is trained in one batch.
#
# Needs no GPU and no network; a few minutes on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab, pinn
from sciode.pde import Box
from sciode.pinn import FAMILIES, Face, Names, Network, Numbers, Problem, Unknown, dirichlet, solve
from sciode.training import LBFGS, Adam, LevenbergMarquardt

session = lab.setup(seed=0, device="cpu")
numbers = Numbers(*lab.scale(full=(600, 80, 80), fast=(150, 30, 30)))

# %% [markdown]
# ## A problem is data
#
# The equation reads fields, derivatives and coordinates by name. It runs once, at four points, when a problem is made:
# a slip shows there, not after an hour of training. Conditions that contradict one another are named, too.

# %%
try:
    Problem("slip", Names(("x", "t"), ("u",)), Box((-1, 0), (1, 1)), lambda d, p: d.u_t - d.u_yy)
except AttributeError as error:
    print(error)

start = dirichlet(Face("t", -1), lambda x: -torch.sin(torch.pi * x[..., :1]) + 0.2, name="start")
walls = dirichlet(Face("x"), lambda x: torch.zeros_like(x[..., :1]), name="walls")
try:
    Problem("corner", Names(("x", "t"), ("u",)), Box((-1, 0), (1, 1)), lambda d, p: d.u_t - d.u_xx, (start, walls))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Heat in two halves of time
#
# One network, two that are joined by their mean and the residual's continuity (XPINN) or by their mean and the flux
# (cPINN), and two under windows that sum to one (FBPINN). Each has Adam first and then least squares.

# %%
problem = FAMILIES["heat"].make()
halves = FAMILIES["heat"].cut(problem)
first = Adam(lab.scale(full=1500, fast=120), lr=3e-3)
stages = [first, LevenbergMarquardt(iterations=lab.scale(full=25, fast=6), damping=1e-3)]
methods = {
    "single": (pinn.single(problem.domain), (), 30),
    "XPINN": (halves, pinn.XPINN, 20),
    "cPINN": (halves, pinn.CPINN, 20),
    "FBPINN": (pinn.windows(pinn.strips(problem.domain, 1, [0.5])), (), 20),
}
found = {
    name: solve(problem, cut, conditions=agree, network=Network(width, 2), numbers=numbers, stages=stages)
    for name, (cut, agree, width) in methods.items()
}
for name, solution in found.items():
    print(f"{name:8s} error {float(solution.error):.1e}, {sum(solution.seconds):.0f} s, {solution.status[0]}")

# %%
x, t = np.linspace(-1, 1, 81), np.linspace(0, 1, 81)
points = torch.from_numpy(np.stack(np.meshgrid(x, t, indexing="ij"), -1).reshape(-1, 2))
exact = problem.exact(points).reshape(81, 81)
figure, axes = plt.subplots(1, 5, figsize=(13, 2.8), sharey=True, layout="constrained")
image = axes[0].imshow(exact.T, origin="lower", extent=(-1, 1, 0, 1), aspect="auto", cmap="RdBu")
figure.colorbar(image, ax=axes[0])
axes[0].set(title="exact", xlabel="x", ylabel="t")
for panel, (name, solution) in zip(axes[1:], found.items(), strict=True):
    off = (solution(points)[0].reshape(81, 81) - exact).abs().clamp(min=1e-8).log10()
    image = panel.imshow(off.T, origin="lower", extent=(-1, 1, 0, 1), aspect="auto", vmin=-5, vmax=0, cmap="viridis")
    panel.set(title=name, xlabel="x")
figure.colorbar(image, ax=axes[1:], label="log10 error")
for panel in axes:
    panel.grid(False)
plt.show()

# %% [markdown]
# Steps of Levenberg-Marquardt know the curvature that Adam has to feel its way through. The table of
# `sciode train pinn_families` compares ways to optimise and ways to cut at equal cost, on six families of problems.
#
# ## Arms: all choices side by side
#
# An arm is a row of weights over the nine conditions, with networks of its own. Arms are one axis of every tensor, so a
# batch of them costs little more than one where there is room. Each is what it is alone.

# %%
names = list(pinn.CONDITIONS)
arms = torch.eye(len(names))
arms[:, names.index("value")] = 1.0
reaction = FAMILIES["reaction"].make(3.0)
cut = FAMILIES["reaction"].cut(reaction)
descent = [Adam(lab.scale(full=1000, fast=40), lr=3e-3), LBFGS(lab.scale(full=200, fast=10))]
small = Numbers(*lab.scale(full=(300, 60, 40), fast=(80, 20, 20)))
batch = solve(reaction, cut, conditions=arms, stages=descent, numbers=small, log=20)
alone = solve(reaction, cut, conditions=arms[:1], stages=descent, numbers=small, log=20)
print(f"{batch.arms} arms: {sum(batch.seconds) / sum(alone.seconds):.1f} times the seconds of one")

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
errors = np.array([entry.error for entry in batch.history])
for arm, name in enumerate(names):
    axes.semilogy(errors[:, arm], label="value alone" if name == "value" else f"and {name}", color=f"C{arm}")
axes.set(xlabel="entry of the history (Adam, then L-BFGS)", ylabel="relative error")
axes.legend(fontsize="x-small", bbox_to_anchor=(1.01, 1.0), loc="upper left")
plt.show()

# %% [markdown]
# ## An inverse problem
#
# What the equation does not say is one more unknown. Here the viscosity of Burgers' equation is found from 200
# measurements with noise. (The search begins five times too high.)

# %%
truth = FAMILIES["burgers"].make(0.05)
draws = np.random.default_rng(0)
places = truth.domain.sample(200, 1, dtype=torch.float64)
seen = truth.exact(places)[:, 0] + torch.from_numpy(draws.normal(size=200)) * 0.01
inverse = Problem(
    "viscosity", Names(("x", "t"), ("u",)), truth.domain, lambda d, p: d.u_t + d.u * d.u_x - p.nu * d.u_xx,
    (pinn.observed(places, seen),), unknowns={"nu": Unknown(0.25, positive=True)},
)  # fmt: skip
steps = [Adam(lab.scale(full=600, fast=150), lr=5e-3), LevenbergMarquardt(iterations=lab.scale(full=30, fast=8))]
answer = solve(inverse, network=Network(lab.scale(full=20, fast=12), 2), stages=steps, numbers=numbers)
print(f"viscosity {float(answer.unknowns['nu']):.4f}, truly 0.05")

# %% [markdown]
# ## What must be true
#
# Windows sum to one; an arm in the batch is the arm alone; what was found is near to what is there.

# %%
shares = methods["FBPINN"][0].window(points).sum(-1)
assert torch.allclose(shares, torch.ones_like(shares))
gap = (batch(points[:50].abs())[0] - alone(points[:50].abs())[0]).abs().max()
assert float(gap) < lab.scale(full=1e-2, fast=1e-6), float(gap)
assert all(bool(torch.isfinite(solution.error).all()) for solution in (*found.values(), batch))
assert min(float(solution.error) for solution in found.values()) < lab.scale(full=0.02, fast=0.5)
assert abs(float(answer.unknowns["nu"]) - 0.05) < lab.scale(full=0.005, fast=0.1)
