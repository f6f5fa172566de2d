# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first neural SDE
#
# From raw, irregular motion-sensor series with half of the readings missing to a classifier that says how sure it is.
#
# Needs no GPU and no network; about a minute on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sciode import lab
from sciode.data import IrregularSeries, drop, load, stratified
from sciode.lab import plots
from sciode.solvers.interpolants import HermitePath
from sciode.timeseries import IrregularClassifier

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## Series with holes
#
# BasicMotions: a smart watch records six channels while its wearer stands, walks, runs or plays badminton. We throw
# half of the single readings away, in each channel others. Hardly a row of the table is complete any more.

# %%
complete, labels = load("BasicMotions")
series = drop(complete, rate=0.5, seed=session.seed, unit="reading")
series

# %%
motions = np.unique(labels)
first = [int((labels == motion).argmax()) for motion in motions]
figure, axes = plt.subplots(2, 2, figsize=(9, 5), sharex=True)
for ax, motion, k in zip(axes.flat, motions, first, strict=True):
    plots.series(ax, series.times[k], series.values[k][:, :3], unit="time (samples)")
    ax.set(title=motion, ylabel="acceleration")

# %% [markdown]
# Your own data come as easily: a list of arrays, each with its own times, or a long pandas table with one row a reading
# time. Lengths and clocks may differ, NaN is a missing reading.

# %%
import pandas as pd

table = pd.DataFrame(
    {"patient": ["a", "a", "a", "b", "b"], "hour": [0.0, 1.5, 7.0, 0.2, 3.0], "pulse": [71, 80, None, 64, 66]}
)
IrregularSeries.from_frame(table, id="patient", time="hour", values=["pulse"])

# %% [markdown]
# ## A path through what was seen
#
# The model follows a continuous path $X(t)$ through the readings of each channel: between two readings a cubic that
# takes its left slope from the past, so nothing later than the next reading is used. We change the readings after
# $t = 50$ and draw the path again: up to the last reading before, it is the same.

# %%
one = series[first[0]]
readings = torch.tensor(one.values[0][:, :1]).unsqueeze(0)
clock, fine = torch.tensor(one.times[0]), torch.linspace(0, 99, 1000, dtype=torch.float64)
path = HermitePath(readings, clock).evaluate(fine)[0, :, 0]
changed = torch.where(clock.view(1, -1, 1) > 50, -readings, readings)
other = HermitePath(changed, clock).evaluate(fine)[0, :, 0]
last_seen = float(clock[(clock <= 50) & ~readings[0, :, 0].isnan()].max())

figure, ax = plt.subplots(figsize=(9, 3))
plots.series(ax, clock, readings[0], path=(fine, path), unit="time (samples)")
ax.plot(fine, other, "--", linewidth=1, label="path if the readings after t = 50 were others")
ax.axvline(last_seen, color="0.5", linewidth=1, label="last reading before the change")
ax.set(ylabel="acceleration x")
_ = ax.legend()

# %% [markdown]
# ## The model
#
# A latent state $z$ follows the path and is shaken by noise that is linear in $z$ (Neural LNSDE; Oh, Lim, Kim 2024):
#
# $$dz = \gamma_\theta\big(t, \bar z\big)\,dt + \sigma_\theta(t)\, z\, dW, \qquad
# \bar z = \zeta_\theta\big(t, z, X(t)\big), \qquad z(0) = h_\theta(X(0)).$$
#
# Multiplicative noise can make such a system stable: a small change of the input, such as other readings missing,
# then moves the law of $z(T)$ only a little. A small network reads the class from $z(T)$. `sciode.solve` takes one
# Euler step a time slot.
#
# We split the series 70/15/15 and train. The validation part chooses the epoch, the test part is not touched.

# %%
split = stratified(labels, session.seed)
train, validation, test = ((series[rows], labels[rows]) for rows in (split.train, split.validation, split.test))
classifier = IrregularClassifier(
    hidden=lab.scale(full=64, fast=32),
    steps=lab.scale(full=None, fast=50),
    epochs=lab.scale(full=40, fast=35),
    batch_size=32,
    random_state=session.seed,
    device="cpu",
    progress=True,
)
classifier.fit(*train, validation=validation)

# %%
epochs = classifier.history_.epochs
figure, ax = plt.subplots(figsize=(6, 3))
ax.plot([e.number for e in epochs], [e.train_loss for e in epochs], label="training")
ax.plot([e.number for e in epochs], [e.validation_loss for e in epochs], label="validation")
ax.axvline(classifier.history_.best_epoch, color="0.5", linewidth=1, label="weights kept")
ax.set(xlabel="epoch", ylabel="cross entropy")
_ = ax.legend()

# %% [markdown]
# Validation lags behind at first: the running averages of BatchNorm need some twenty minibatches to settle. That is why
# no epoch is chosen, and nothing is stopped, in the first 80 minibatches.

# %% [markdown]
# ## What it has learnt

# %%
predicted = classifier.predict(test[0])
accuracy = classifier.score(*test)
figure, ax = plt.subplots(figsize=(4, 3.6))
plots.confusion(ax, test[1], predicted, motions.tolist())
_ = ax.set_title(f"{len(test[1])} test series: accuracy {accuracy:.2f}")

# %% [markdown]
# Every prediction is an average over noise. Here is one series of each kind, one latent channel, 24 Brownian paths.

# %%
kinds = [int((test[1] == motion).argmax()) for motion in motions]
times, paths = classifier.latent_paths(test[0][kinds], n_samples=24)
busiest = int(paths.std(0).mean((0, 1)).argmax())
figure, ax = plt.subplots(figsize=(9, 3.4))
for case, motion in enumerate(motions):
    plots.fan(ax, times, paths[:, :, case, busiest], label=motion)
ax.set(xlabel="time (samples)", ylabel=f"z, channel {busiest}")
_ = ax.legend(loc="upper left")

# %% [markdown]
# ## How sure is it?
#
# We take ever more readings away, without training again (from test and validation series together: 24 say more than
# 12). Up to three quarters missing, accuracy holds. Beyond, the probability that the classifier gives to its own answer
# falls and the spread over the noise draws grows: both warn. But the probability falls too little: trained at 50 %, the
# model is overconfident where it sees next to nothing.

# %%
rates = [0.0, 0.25, 0.5, 0.75, 0.9, 0.96]
hits, confidence, spread = [], [], []
for rate in rates:
    fewer = drop(complete, rate, seed=session.seed + 1)[np.concatenate([split.test, split.validation])]
    truth = labels[np.concatenate([split.test, split.validation])]
    mean, std = classifier.predict_proba(fewer, return_std=True)
    hits.append((classifier.classes_[mean.argmax(-1)] == truth).mean())
    confidence.append(mean.max(-1).mean())
    spread.append(std.max(-1).mean())

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(rates, hits, "o-", label="accuracy")
left.plot(rates, confidence, "s-", label="mean probability of its answer")
left.set(xlabel="share of readings missing", ylim=(0, 1.05))
left.legend()
right.plot(rates, spread, "o-", color="C2")
_ = right.set(xlabel="share of readings missing", ylabel="spread over noise draws", ylim=(0, None))

# %% [markdown]
# ## Keep it

# %%
classifier.save(session.out / "motions.safetensors")
again = IrregularClassifier.load(session.out / "motions.safetensors", device="cpu")
same = np.array_equal(again.predict_proba(test[0]), classifier.predict_proba(test[0]))
same

# %% [markdown]
# ## What can go wrong
#
# - **Few test series.** With twelve of them one mistake costs 8 points of accuracy: look at `sciode demo` (three seeds,
#   two data sets) or `cross_val_score(classifier, series, labels)`; scikit-learn splits series, never rows.
# - **Steep slopes before long gaps overshoot.** The path takes its last slope into the gap (the spikes in the second
#   picture); the price of not looking further ahead than the next reading.
# - **The noise can die.** Training likes small $\sigma$; if `spread` is zero everywhere, the model is an ODE.
# - **Long univariate series** are a weak spot of reading $z(T)$ alone. Compare with MiniRocket first.
#
# Exercises: use `unit="time"` in `drop`; set `form="paper"`; plot accuracy against `steps`.
#
# References: Oh, Lim, Kim, *Stable Neural SDEs in analyzing irregular time series data* (ICLR 2024, arXiv 2402.14989).
# Morrill et al., *Neural CDEs for online prediction tasks* (arXiv 2106.11028). BasicMotions: UEA archive, through aeon.

# %% [markdown]
# ## What must be true

# %%
assert 0.45 < series.missing_rate < 0.55
before = fine <= last_seen
assert torch.equal(path[before], other[before]) and not torch.equal(path, other), "the path reads the future"
assert epochs[-1].train_loss < 0.7 * epochs[0].train_loss
assert accuracy >= 0.9, accuracy
assert np.allclose(classifier.predict_proba(test[0]).sum(-1), 1)
assert paths[:, -1].std(0).max() > 0, "the noise has died"
assert min(hits[:4]) >= 0.75 and hits[-1] < hits[2]
assert max(confidence[-2:]) < confidence[2] and max(spread[-2:]) > spread[2]
assert same, "saving or loading changed the model"
