# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which equation is it?
#
# Three quantities were recorded for two units of time. Where do they go next, and by which law? A transformer that has
# seen many systems reads the recording, continues it, and writes equations: only such as its grammar allows, so that
# each is one. Their numbers are then fitted to the recording through `sciode.solve`.
#
# Needs no GPU and no network; a minute on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Math, display

from sciode import lab
from sciode.prose import Course, Drawing, Fit, Prose, Reading, draw, sin, variables
from sciode.prose.metrics import Terms, solved, terms_of

session = lab.setup(seed=0, device="cpu")
fit = Fit(iterations=lab.scale(full=60, fast=20))

# %% [markdown]
# ## A recording, as a CSV
#
# Lorenz' equations with numbers that the model has never seen, by our own solver, 1 % of noise. Replace the file with
# one of yours: a column of times, three of values. But mind that the model that comes with sciode knows twelve systems:
# others are written as if they were made of the terms of those, which a warning says.

# %%
(truth,) = draw(Drawing(("lorenz",), equations=1, starts=1, engine="eager", part="test"), seed=16)
clock, path = np.linspace(0, 6, 192), truth.values[0].numpy()
rng = np.random.default_rng(session.seed)
noise = 0.01 * np.sqrt((path**2).mean()) * rng.normal(size=(64, 3))
file = session.out / "recording.csv"
pd.DataFrame(path[:64] + noise, columns=["x", "y", "z"]).assign(t=clock[:64]).to_csv(file, index=False)

recording = pd.read_csv(file)
recording.head(3)

# %% [markdown]
# ## At once
#
# The model that comes with sciode, and one call. Nothing is said about the equations.

# %%
prose = Prose.from_pretrained(device="cpu")
times, values = recording["t"].to_numpy(), recording[["x", "y", "z"]].to_numpy()
later = clock[64:]
found = prose.predict(times, values, later, fit=fit)
print(f"{prose.model.weights / 1e6:.1f} million weights, trained on {', '.join(prose.systems)}")
display(Math(found.latex(names=("x", "y", "z"))))

# %% [markdown]
# Candidates, as they were written. "excess": how far a candidate's path is from the recording, squared, over the noise
# that differences of the recording tell: 1 is what noise explains. "weight": its probability beside the others, less
# for a worse fit and for more numbers. One that blows up on its way has weight 0, and says why.

# %%
print(f"noise told: {found.noise.round(3)}, true: {noise.std(0).round(3)}; doubtful: {found.doubtful}")
pd.DataFrame({"weight": found.weights.round(3), "excess": found.excess.round(2), "status": found.status})

# %% [markdown]
# ## With a guess
#
# Often something is known. A guess is a skeleton: numbers in it do not matter, and a term too many or too few does no
# great harm.

# %%
x, y, z = variables(3)
guess = (1.0 * (y - x), x * (1.0 - z) - y, x * y - 1.0 * z)
told = prose.predict(times, values, later, guess=guess, fit=fit)
display(Math(told.latex(names=("x", "y", "z"))))


def error(answer):
    return float(np.linalg.norm(answer - path[64:]) / np.linalg.norm(path[64:]))


last = np.repeat(values[-1:], len(later), 0)
errors = {
    "last value": error(last),
    "operator": error(told.operator),
    "equations, nothing told": error(found.values),
    "equations, with a guess": error(told.values),
}
pd.Series(errors).round(3)

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for place, (axis, name) in enumerate(zip(axes, "xyz", strict=True)):
    axis.plot(clock, path[:, place], color="0.75", lw=4, label="truth")
    axis.plot(later, told.operator[:, place], color="tab:orange", label="operator")
    axis.plot(later, told.values[:, place], color="tab:blue", label="its equations, solved")
    low, high = told.band(0.9)
    axis.fill_between(later, low[:, place], high[:, place], color="tab:blue", alpha=0.2, label="its band of 90 %")
    axis.plot(times, values[:, place], ".", color="k", ms=3, label="read")
    axis.set(xlabel="t", title=name, ylim=(path[:, place].min() - 8, path[:, place].max() + 8))
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# The operator answers times one by one, from what it has seen of many systems; equations, once their terms and numbers
# are right, foresee as far as chaos lets them. The band is what numbers and start may be beside the noise, candidates
# weighed by their evidence: it is worth something where the right terms are among them, and nothing where `doubtful`.

# %%
true = terms_of(truth.equations[0])
counted = {name: Terms.between(terms_of(one.equations[one.best], 1e-3), true)
           for name, one in (("nothing told", found), ("with a guess", told))}  # fmt: skip
pd.DataFrame(
    {name: {"true terms found": one.found, "of": one.true, "written": one.written} for name, one in counted.items()}
)

# %% [markdown]
# ## A system that the model does not know
#
# A pendulum: none of the twelve systems has its sine in that place. What is written leaves far more than noise
# explains, and `predict` warns. `search=` then adds and drops terms, fits each change through the solver, and keeps
# what is worth its numbers.

# %%
swing, speed = variables(2)
pendulum = solved([(speed, -4.0 * sin(swing))], torch.tensor([[1.0, 0.5]]).double(), torch.from_numpy(clock))
angle = pendulum.values[0].numpy()
foreign = {}
for name, rounds in (("as it is", 0), ("with a search", lab.scale(full=8, fast=2))):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        foreign[name] = prose.predict(times, angle[:64], later, beams=2, fit=fit, search=rounds)
    answer = foreign[name]
    apart = np.linalg.norm(answer.values - angle[64:]) / np.linalg.norm(angle[64:])
    print(
        f"{name}: doubtful {answer.doubtful}, relative error {apart:.2g}", *(one.message for one in heard), sep="\n  "
    )
    display(Math(answer.latex(names=("angle", "speed"))))

# %% [markdown]
# ## What is refused, and what is reported
#
# Recordings that tell nothing, or that the model cannot know, are refused by name.

# %%
faults = {
    "constant": (times, np.ones_like(values)),
    "not sorted": (times[::-1], values),
    "a gap": (times, np.where(np.arange(64)[:, None] == 7, np.nan, values)),
    "four components": (times, np.repeat(values[:, :1], 4, 1) + np.arange(4) * values[:, 1:2]),
}
said = {}
for name, (t, v) in faults.items():
    try:
        prose.predict(t, v, later)
    except ValueError as fault:
        said[name] = str(fault)
pd.Series(said)

# %% [markdown]
# ## A model of your own
#
# Systems are data: right-hand sides, nominal numbers and how far they are drawn from those. Training on one system for
# a moment shows how; `sciode train prose` trains on all and compares.

# %%
curve = []
own = Prose.trained(
    "tiny",
    Drawing(("thomas",), equations=20, starts=5, engine="eager"),
    Course(steps=lab.scale(full=400, fast=30), batch=16, every=10, lr=2e-3, warmup=10, reading=Reading(queries=16)),
    device="cpu",
    tell=curve.append,
)
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
for name in ("data", "symbols"):
    axis.plot([one["step"] for one in curve], [one["full"][name] for one in curve], label=name)
axis.set(xlabel="step", ylabel="loss", yscale="log")
axis.legend()
plt.show()

# %% [markdown]
# Where to go on: `sciode train prose --help`, and the table in `notebooks/results`: what symbols are worth to the
# operator, what noise and wrong guesses cost, and how written equations stand beside sparse regression.

# %% [markdown]
# ## What must be true

# %%
assert len(found.equations) == 4 and all(len(one) == 3 for one in found.equations), "every candidate is a system"
assert not told.doubtful and foreign["as it is"].doubtful, "doubts are said where there are any"
assert not foreign["with a search"].doubtful, "and a search may find what is missing"
assert set(said) == set(faults), "every fault is named"
assert np.isfinite(told.values).all() and np.isfinite(told.operator).all()
assert errors["equations, with a guess"] < errors["last value"], "told the skeleton, it foresees"
assert curve[-1]["full"]["symbols"] < curve[0]["full"]["symbols"], "a moment of training lowers the loss"
