# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Irregular series: classify, forecast, fill in
#
# Three estimators for series that keep their own clocks, have gaps and differ in length: `IrregularClassifier`,
# `IrregularForecaster`, `IrregularInterpolator`. Each says how sure it is, and each is held against something simple.
#
# Needs no GPU and no network; some minutes on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np

from sciode import lab
from sciode.data import IrregularSeries, drop, load, path, stays
from sciode.lab import plots
from sciode.timeseries import ChannelMean, IrregularClassifier, IrregularForecaster, IrregularInterpolator, LastValue

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## Classify
#
# JapaneseVowels: nine men say two vowels; 12 channels, 7 to 29 time points, nothing is padded or stretched. We throw
# half of the single readings away and ask who speaks. Training and test are the archive's own parts.

# %%
speech, speaker = load("JapaneseVowels", "train")
others, truth = load("JapaneseVowels", "test")
speech, others = drop(speech, 0.5, seed=0), drop(others, 0.5, seed=1)
classifier = IrregularClassifier(
    epochs=lab.scale(full=60, fast=12), hidden=lab.scale(full=64, fast=32), batch_size=32, random_state=session.seed
)
classifier.fit(speech, speaker)
accuracy = classifier.score(others, truth)
speech

# %%
mean, spread = classifier.predict_proba(others, return_std=True)
right = classifier.classes_[mean.argmax(-1)] == truth
figure, (left, middle) = plt.subplots(1, 2, figsize=(9, 3.8))
plots.confusion(left, truth, classifier.classes_[mean.argmax(-1)], classifier.classes_.tolist())
left.set_title(f"370 test series: accuracy {accuracy:.2f}")
middle.hist([mean.max(-1)[right], mean.max(-1)[~right]], bins=12, stacked=True, label=["right", "wrong"])
middle.set(xlabel="probability of its answer", ylabel="series")
_ = middle.legend()

# %% [markdown]
# ## Forecast, with bands
#
# Swings that fade, each with its own frequency and phase, read at random times with noise. The forecaster learns from
# many cuts of each series: what lies before a cut is given, what follows is to be told, and reaches the model in no
# other way. Between and after readings its state goes on by itself; at any time it can be read as a Gaussian.


# %%
def swings(count: int, seed: int) -> IrregularSeries:
    """Fading swings of frequency 0.25 to 0.5, 40 readings at random times, noise of standard deviation 0.1."""
    rng = np.random.default_rng(seed)
    clocks = np.cumsum(rng.uniform(0.1, 0.4, (count, 40)), axis=1)
    frequency, phase = rng.uniform(0.25, 0.5, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    clean = np.exp(-0.1 * clocks) * np.sin(2 * np.pi * frequency * clocks + phase)
    return IrregularSeries((clean + 0.1 * rng.standard_normal(clean.shape))[..., None], clocks)


train, test = swings(lab.scale(full=200, fast=60), seed=0), swings(100, seed=1)
forecaster = IrregularForecaster(
    ahead=12,
    history=28,
    shortest=10,
    horizon=20.0,
    epochs=lab.scale(full=40, fast=18),
    batch_size=lab.scale(full=64, fast=32),
    stride=lab.scale(full=1, fast=2),
    n_samples=lab.scale(full=16, fast=6),
    random_state=session.seed,
)
forecaster.fit(train)
rivals = {"last value": LastValue(ahead=12).fit(train), "mean": ChannelMean(ahead=12).fit(train)}
scores = {"forecaster": forecaster.score(test)} | {name: rival.score(test) for name, rival in rivals.items()}
scores

# %%
given = IrregularSeries([v[:28] for v in test.values], [t[:28] for t in test.times])
future = np.stack([t[28:] for t in test.times])
lower, upper = forecaster.predict_interval(given, future, coverage=0.9)
expected_future, draws = forecaster.predict(given, future), forecaster.sample(given, future, n=5)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True)
for k, ax in enumerate(axes):
    plots.series(ax, test.times[k], test.values[k], unit="time")
    ax.lines[-1].set_label("readings")
    ax.axvline(given.times[k][-1], color="0.5", linewidth=1)
    ax.fill_between(future[k], lower[k, :, 0], upper[k, :, 0], color="C1", alpha=0.25, label="90 % band")
    ax.plot(future[k], expected_future[k, :, 0], color="C1", label="expected")
    for j, draw in enumerate(draws[:, k, :, 0]):
        ax.plot(future[k], draw, color="C2", linewidth=0.5, alpha=0.6, label="paths" if j == 0 else None)
_ = axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

# %% [markdown]
# Do the bands hold what they say? On 100 series that no training has seen we count, for every coverage that could be
# asked for, how many readings lie inside.

# %%
levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
told = np.stack([v[28:] for v in test.values])
bands = [forecaster.predict_interval(given, future, level) for level in levels]
inside = np.array([((low < told) & (told < high)).mean() for low, high in bands])
figure, ax = plt.subplots(figsize=(3.8, 3.6))
ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
ax.plot(levels, inside, "o-")
_ = ax.set(xlabel="coverage asked for", ylabel="share of readings inside")

# %% [markdown]
# ## Fill in
#
# Vital signs of patients in intensive care (PhysioNet 2012; `sciode data get physionet2012` brings it). Where the set
# is not on this machine, series of the same kind are made up: the picture's title says which. The interpolator reads
# every series forwards and backwards, and learns by hiding readings and telling them. A hundred stays are for the test.

# %%
SIGNS = {"heart rate, 1/min": 14, "respiration, 1/min": 27, "temperature, °C": 30}


def vitals(count: int) -> tuple[IrregularSeries, str]:
    """Up to three vital signs of `count` stays, hourly, and where they are from."""
    try:
        path("physionet2012")
    except FileNotFoundError:
        made = swings(count, seed=2)
        three = [np.concatenate([80 + 20 * v, 18 - 4 * v, 37 + 0.5 * v], axis=1) for v in made.values]
        return drop(made.replace_values(three), 0.5, seed=3), "made-up stays"
    known = stays(minutes=60).series
    chosen = [v[:, list(SIGNS.values())] for v in known.values]
    enough = [k for k, v in enumerate(chosen) if (~np.isnan(v)).sum() > 20][:count]
    return IrregularSeries([chosen[k] for k in enough], [known.times[k] for k in enough]), "PhysioNet stays"


patients, source = vitals(lab.scale(full=700, fast=220))
train, test = patients[100:], patients[:100]
patients

# %%
interpolator = IrregularInterpolator(
    epochs=lab.scale(full=40, fast=14),
    copies=lab.scale(full=4, fast=1),
    batch_size=lab.scale(full=128, fast=32),
    random_state=session.seed,
)
interpolator.fit(train)
filling = {"interpolator": interpolator.score(test)}
for rival in (LastValue, ChannelMean):
    filling[rival.__name__] = rival(task="interpolate").fit(train).score(test)
filling

# %%
one = test[int(np.argmax([np.isnan(v[:, 0]).sum() * (~np.isnan(v[:, 0])).sum() for v in test.values]))]
fine = np.linspace(one.times[0][0], one.times[0][-1], 200)
lower, upper = interpolator.predict_interval(one, fine, coverage=0.9)
expected = interpolator.predict(one, fine)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2))
for k, (ax, name) in enumerate(zip(axes, SIGNS, strict=True)):
    ax.fill_between(fine, lower[0, :, k], upper[0, :, k], color="C1", alpha=0.25)
    ax.plot(fine, expected[0, :, k], color="C1")
    plots.series(ax, one.times[0], one.values[0][:, k], unit="time (h)")
    ax.set(title=source, ylabel=name)
figure.tight_layout()

# %% [markdown]
# Bands are narrow next to readings and wide in gaps. `impute` puts the expected value where a reading is missing and
# leaves the readings alone.

# %%
complete = interpolator.impute(test)
complete

# %% [markdown]
# ## What can go wrong
#
# - **Bands are for one reading each.** That a whole path stays inside a 90 % band is less likely than 90 %.
# - **Bands are calibrated on validation series like the training's.** On other series, and beyond `ahead`, they promise
#   nothing.
# - **Missing because of the value.** Nurses look more often when something is wrong; the models take gaps as chance.
# - **A simple rival may win.** `LastValue` and `ChannelMean` have the same methods: put them into every table.
#
# Exercises: set `model="ncde"` or `"grud"`; `n_models=3`; ask the forecaster for times far beyond what it was taught.
#
# References: Oh, Lim, Kim (ICLR 2024, arXiv 2402.14989); Silva et al., PhysioNet/CinC Challenge 2012 (ODC-By 1.0);
# Kudo, Toyama, Shimbo, *Multidimensional curve classification using passing-through regions* (JapaneseVowels, 1999).

# %% [markdown]
# ## What must be true

# %%
assert accuracy > lab.scale(full=0.9, fast=0.6), accuracy
assert scores["forecaster"] > max(scores["last value"], scores["mean"]) + 0.2, scores
assert np.abs(inside - levels).max() < 0.12, inside
again = swings(100, seed=1)
altered = again.replace_values([np.concatenate([v[:28], 9 - v[28:]]) for v in again.values])
same = IrregularSeries([v[:28] for v in altered.values], [t[:28] for t in altered.times])
assert np.array_equal(forecaster.predict(same, future), expected_future), "a look ahead"
assert filling["interpolator"] > max(filling["LastValue"], filling["ChannelMean"]), filling
assert complete.missing_rate == 0
