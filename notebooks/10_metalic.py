# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which interface conditions? Let bandits find out
#
# Networks on the pieces of a domain have to agree where pieces meet. In what? In values, fluxes, derivatives,
# residuals: nine conditions, 512 sets of them, and no set is the best for all equations. METALIC learns from task to
# task which one to train the next task with. Here all sets are trained, so that we can see what the best would have
# been.
#
# Needs no GPU and no network; a few minutes on a laptop. `pip install "sciode[lab,pinn]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab
from sciode.lab import bandit_plots
from sciode.pinn import Network, Numbers
from sciode.pinn.metalic import Bandit, Budget, Trained, arms_of, draw_tasks, learn, rewards, said, varied
from sciode.training import LBFGS, Adam

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## All arms of a task in one batch
#
# A task is a problem of a family with a parameter of its own: u_t = rate u (1 - u), with another rate each time. An
# arm is a set of conditions. `rewards` trains all arms of a task side by side, first by Adam and then by L-BFGS, and
# says how many decades the relative error is below 1 after each of them.

# %%
wanted = ("average", "flux", "tangential derivative")
conditions = lab.scale(full=(*wanted, "residual continuity"), fast=wanted)
arms = arms_of(conditions)
steps = lab.scale(full=(300, 80), fast=(150, 40))
budget = Budget((Adam(steps[0], lr=1e-2), LBFGS(steps[1])), Network(8, 2), Numbers(32, 24, 12), dtype=torch.float32)
tasks = draw_tasks("reaction", lab.scale(full=12, fast=5), seed=1, share=0.15)
table = torch.stack([rewards(task, arms, budget, seed=place)[:, -1] for place, task in enumerate(tasks)])
contexts = torch.stack([task.context for task in tasks])
best = table.mean(0).argmax()
print(f"{len(tasks)} tasks x {len(arms)} arms; the best on average: {said(arms[best])}")

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
bandit_plots.rewards(ax, contexts[:, 0], table, marks=table.argmax(1).tolist(), unit="rate")
plt.show()

# %% [markdown]
# Dots are the best arms. A random arm loses what the table's colours say; how much a choice loses is its regret.
#
# ## Agents
#
# An agent sees a task's rate, chooses an arm, and is told its reward, nothing else. A Gaussian process over rates and
# sets predicts all arms together; "ucb" takes the largest mean + sigma, "thompson" the best arm of one joint draw.

# %%
count, runs = lab.scale(full=80, fast=24), lab.scale(full=5, fast=2)
order = torch.randint(len(tasks), (count,), generator=torch.Generator().manual_seed(session.seed))
columns = torch.nonzero((arms != arms[0]).any(0))[:, 0]
pool = arms[:, columns]
curves, agents = {}, {}
for rule in ("ucb", "thompson"):
    bandit, lost = Bandit(rule, refit=8), []
    for seed in range(runs):
        plays = learn(bandit, contexts[order], pool, lambda n, chosen: float(table[order[n], chosen[0]]), seed=seed)
        found = torch.tensor([play.rewards[0] for play in plays], dtype=torch.float64)
        lost.append((table[order].max(1).values - found).cumsum(0).numpy())
    curves[rule], agents[rule] = np.stack(lost), Trained(bandit, pool, plays)
random = (table[order].max(1).values - table[order].mean(1)).cumsum(0).numpy()

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for rule, lost in curves.items():
    bandit_plots.regret(ax, lost, label=rule)
bandit_plots.regret(ax, random[None], label="random arm", color="0.4", style="--")
ax.legend()
plt.show()

# %% [markdown]
# ## What did it learn?
#
# What a condition adds to the reward is a linear function of the process, so its posterior is exact. The weights are
# the kernel's: how unlike two arms are that differ in this condition. A condition may have a large weight and no
# effect on average, where it helps in some company and harms in other.

# %%
names, agent = varied(arms), agents["thompson"]
effect, spread = agent.effects(contexts.mean(0))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
bandit_plots.conditions(left, names, effect, spread, unit="added to the reward, decades")
bandit_plots.conditions(right, names, agent.process().weights, unit="weight in the kernel")
plt.show()

# %%
true = torch.stack([table[:, pool[:, k] == 1].mean() - table[:, pool[:, k] == 0].mean() for k in range(len(names))])
for name, guess, sd, value in zip(names, effect.tolist(), spread.tolist(), true.tolist(), strict=True):
    print(f"{name:28s} learnt {guess:+.2f} ± {sd:.2f}, true mean over tasks {value:+.2f}")
unseen = draw_tasks("reaction", 1, seed=2, share=0.15)[0]
print(f"rate {unseen.values[0]:.2f}, never seen: {said(arms[agent.choose(unseen.context)])}")

# %% [markdown]
# Where to go on: `Bandit(stages=2)` chooses anew between Adam and L-BFGS, knowing the first reward; `folder=` keeps
# plays and goes on from them; `sciode train metalic` makes the table of all families, with the oracle, fixed presets
# and a single network beside agents. With all 384 sets and longer training, on four families, a random set has 8 to 39
# times the oracle's error, the best agent 1.3 to 2 times, and a single network about the oracle's
# (`notebooks/results`). `draw_tasks(..., official_supervision=True)` tells networks the solution at the last time, as
# the authors' code does; that is the answer, so it is off.

# %% [markdown]
# ## What must be true

# %%
for rule, lost in curves.items():
    assert lost.shape == (runs, count) and (np.diff(lost, axis=1) >= -1e-9).all()
    assert lost[:, -1].mean() < random[-1], f"{rule}: learning loses less than guessing"
assert effect.shape == spread.shape == (len(names),) and bool((spread > 0).all())
assert table.shape == (len(tasks), len(arms)) and bool(table.isfinite().all())
