# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What regularisation does to a vector field
#
# A neural ODE is free in how it gets from its input to its output, and training does not care how crooked the way is.
# The solver does: crooked ways need small steps, and every step is paid for at each prediction. One argument of `solve`
# makes the solver's own trouble part of the loss.
#
# Needs no GPU and no network; about a minute on a laptop.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from sciode import Error, Local, Taylor, lab, solve, steer
from sciode.experiments.stacked import StackedLinear

session = lab.setup(seed=0)
SEEDS = [session.seed, session.seed + 1, session.seed + 2]
STEPS = lab.scale(full=250, fast=20)

# %% [markdown]
# ## A map that any field could learn
#
# We ask for $x \mapsto x^3$: the state starts at $z(0) = x$ and should be $x^3$ at $t = 1$, for 32 points between
# -1 and 1. Three networks are trained at once, side by side (the first axis of everything is the seed): a solve does
# not care, and we see the spread.


# %%
class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = StackedLinear(2, 24, SEEDS)
        self.middle = StackedLinear(24, 24, [s + 100 for s in SEEDS])
        self.outer = StackedLinear(24, 1, [s + 200 for s in SEEDS])

    def forward(self, t, z):
        hidden = torch.tanh(self.inner(torch.cat([z, t.expand_as(z)], -1)))
        return self.outer(torch.tanh(self.middle(hidden)))


x = torch.linspace(-1, 1, 32).reshape(1, -1, 1).repeat(len(SEEDS), 1, 1)
TOLERANCE = 1e-5


def flow(field, ts, **options):
    return solve(field, x, ts, batch_dims=2, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE, engine="eager", **options)


# %% [markdown]
# ## Five ways to train it
#
# - *vanilla*: nothing but the task.
# - *error*: plus $\sum_j E_j |h_j|$, the scaled errors that the solver estimates anyway, over all its steps.
# - *local*: plus the same of one step more, from a random time. Works with every adjoint, even `backsolve`.
#   `state="frozen"` is the authors' own variant; try it: its gradient mistakes a shift of the field for an error.
# - *Taylor*: plus $\int |z'''|^2 dt$, which is what a method of that order has trouble with.
# - *random end*: the last time is drawn anew at every training step (STEER).

# %%
RECIPES = {
    "vanilla": (None, 0.0),
    "error": (Error(), 3e-3),
    "local": (Local(step="solver"), 3e-3),
    "Taylor": (Taylor(3), 1e-3),
    "random end": (None, 0.0),
}


def train(name):
    regularizer, weight = RECIPES[name]
    field = Field()
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    for step in range(STEPS):
        ts = steer([0.0, 1.0], 0.5, step) if name == "random end" else [0.0, 1.0]
        options = {} if regularizer is None else {"regularize": regularizer, "seed": step}
        found = flow(field, ts, **options)
        # Summed over the seeds, so that each learns as if it were alone.
        loss = (found.ys[-1] - x**3).square().mean((1, 2)).sum()
        for penalty in found.penalties.values():
            loss = loss + weight * penalty.mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return field


# %%
fields = {name: train(name) for name in lab.progress(RECIPES, "recipes")}

# %% [markdown]
# ## What they cost
#
# Evaluations of the field that a prediction takes, mean and standard deviation over the three seeds, and the error of
# the map. The weights above were chosen by hand for this picture: `sciode train mnist_ode` chooses them on validation
# data.

# %%
with torch.no_grad():
    tested = {name: flow(field, [0.0, 1.0]) for name, field in fields.items()}
lines = []
for name, found in tested.items():
    nfe = found.stats.nfe.double().mean(1)
    error = (found.ys[-1] - x**3).square().mean((1, 2)).sqrt()
    spread = [f"{v.mean():.{d}f} ± {v.std():.{d}f}" for v, d in ((nfe, 1), (error, 3))]
    lines.append([name, *spread])
pd.DataFrame(lines, columns=["trained with", "evaluations", "rms error"])

# %% [markdown]
# ## What they look like
#
# The learned fields of the first seed (arrows), the ways of eight points through them, and where the solver's steps
# ended (dots). All fields do the same to their points; they differ in how the ways bend near the end, where the points
# of the middle come together, and so in how many dots it takes.


# %%
def picture(ax, name, field):
    ts = torch.linspace(0, 1, 60, dtype=torch.float64)
    t, z = torch.meshgrid(torch.linspace(0, 1, 22), torch.linspace(-1.1, 1.1, 19), indexing="ij")
    with torch.no_grad():
        ways, steps = flow(field, ts).ys[:, 0, ::4, 0], flow(field, [0.0, 1.0], save="steps")
        flat = z.reshape(1, -1, 1).repeat(len(SEEDS), 1, 1)
        slope = field(t.reshape(1, -1, 1).repeat(len(SEEDS), 1, 1), flat)[0].reshape(t.shape)
    ax.quiver(t, z, torch.ones_like(slope), slope, angles="xy", scale_units="xy", scale=22, color="0.6", width=0.003)
    ax.plot(ts, ways, color="C0", lw=1.2)
    inside = steps.valid[:, 0, ::4]
    ax.plot(steps.ts[:, 0, ::4][inside], steps.ys[:, 0, ::4, 0][inside], "o", color="C1", ms=3.5)
    ax.set(title=name, xlabel="t", xlim=(-0.02, 1.02), ylim=(-1.15, 1.15))


# %%
figure, axes = plt.subplots(1, 5, figsize=(14, 3.6), sharey=True, layout="constrained")
for ax, (name, field) in zip(axes, fields.items(), strict=True):
    picture(ax, name, field)
axes[0].set_ylabel("z(t)")
plt.show()

# %% [markdown]
# ## What must be true
#
# Whatever the training did, a penalty changes no number of the solve it belongs to, and the cheap fields are still
# right about the map.

# %%
with torch.no_grad():
    plain = flow(fields["vanilla"], [0.0, 1.0])
    watched = flow(fields["vanilla"], [0.0, 1.0], regularize=["error", "local", "kinetic", "taylor"], seed=0)
assert torch.equal(plain.ys, watched.ys)
assert torch.equal(plain.stats.nfe, watched.stats.nfe)
assert all(bool(p.isfinite().all()) for p in watched.penalties.values())
if not lab.fast():
    cost = {name: float(found.stats.nfe.double().mean()) for name, found in tested.items()}
    assert cost["error"] < cost["vanilla"]
