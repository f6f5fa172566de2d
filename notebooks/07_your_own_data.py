# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own data: from a CSV to a forecast in ten lines
#
# A table with one row a reading is all it takes: whose reading, when, and what was read. Clocks may differ, readings
# may be missing, and no two series need be equally long.
#
# Needs no GPU and no network; a minute on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sciode import lab
from sciode.data import IrregularSeries
from sciode.lab import plots
from sciode.timeseries import IrregularForecaster, LastValue

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## A CSV
#
# So that this notebook needs nothing, it first writes a file as a logger in the field might have left it: temperature
# and humidity at stations in a valley or on a ridge, dates instead of numbers, uneven times, gaps. Yours stands
# somewhere already: leave this cell out.

# %%
rng = np.random.default_rng(session.seed)
parts = []
for station in range(lab.scale(full=60, fast=24)):
    hours = np.sort(rng.choice(np.arange(0, 96, 0.5), rng.integers(50, 80), replace=False)) + rng.uniform(0, 0.4)
    ridge = rng.random() < 0.5
    day = np.sin(2 * np.pi * (hours - 8) / 24) * (3 if ridge else 7)
    temperature = (8 if ridge else 15) + day + rng.normal(0, 1) + rng.normal(0, 0.6, hours.shape)
    humidity = 70 - 3 * day + rng.normal(0, 4, hours.shape)
    humidity[rng.random(hours.shape) < 0.3] = np.nan
    when = pd.Timestamp("2026-05-01") + pd.to_timedelta(hours, unit="h")
    parts.append(pd.DataFrame({"station": f"S{station:02d}", "when": when, "place": "ridge" if ridge else "valley",
                               "temperature": temperature, "humidity": humidity}))  # fmt: skip
file = session.out / "stations.csv"
pd.concat(parts).to_csv(file, index=False)

# %% [markdown]
# ## Ten lines

# %%
table = pd.read_csv(file, parse_dates=["when"])
table["hour"] = (table["when"] - table["when"].min()).dt.total_seconds() / 3600
channels = ["temperature", "humidity"]
series = IrregularSeries.from_frame(table, id="station", time="hour", values=channels, static="place")
train, test = series[:-10], series[-10:]
settings = {"ahead": 12, "history": 40, "shortest": 20, "stride": 2, "batch_size": 32}
forecaster = IrregularForecaster(**settings, epochs=lab.scale(full=40, fast=24)).fit(train)
times = np.linspace(97, 120, 47)
expected = forecaster.predict(test, times)
lower, upper = forecaster.predict_interval(test, times, coverage=0.9)

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 5.4), sharex=True)
shown = [int(np.argmax([s.static[0, 0] == place for s in test])) for place in ("valley", "ridge")]
for row, k in zip(axes, shown, strict=True):
    for c, (ax, name) in enumerate(zip(row, channels, strict=True)):
        plots.series(ax, test.times[k], test.values[k][:, c], unit="hour")
        band = ax.fill_between(times, lower[k, :, c], upper[k, :, c], color="C1", alpha=0.25)
        (line,) = ax.plot(times, expected[k, :, c], color="C1")
        ax.set(title=test.static[k, 0] if c == 0 else "", ylabel=f"{name} ({'°C' if c == 0 else '%'})")
readings = axes[0, 0].lines[0]
names = ("readings", "expected", "9 of 10 new readings")
figure.legend((readings, line, band), names, loc="outside upper right", ncols=3)

# %% [markdown]
# `place` is text: it becomes one column a category and one for whatever training has not seen. Numbers (an altitude, an
# age) would be standardised. Times are numbers in a unit of your choice; that is why the dates became hours.

# %% [markdown]
# ## Is it any good?
#
# `score` sets the last `ahead` time points of every series aside, forecasts them from the rest, and gives R². Ask the
# simple rival the same.

# %%
scores = {"forecaster": forecaster.score(test), "last value": LastValue(ahead=12).fit(train).score(test)}
scores

# %% [markdown]
# ## Keep it, and ask again

# %%
forecaster.save(session.out / "stations.safetensors")
again = IrregularForecaster.load(session.out / "stations.safetensors")
new = pd.DataFrame({"station": "new", "hour": [1.0, 5.5, 9.0, 13.0], "place": "lake shore",
                    "temperature": [10.0, 6.2, 11.0, 18.5], "humidity": [80.0, None, 71.0, None]})  # fmt: skip
newcomer = IrregularSeries.from_frame(new, id="station", time="hour", values=channels, static="place")
again.predict(newcomer, [14.0, 20.0])

# %% [markdown]
# ## What can go wrong
#
# - **Time zero.** Each series begins at its own first reading. That it is noon at hour 12 the model does not know: give
#   the hour of the day as a channel if the clock on the wall matters.
# - **Too few series.** With fewer than five, the last windows of each validate; a single long series works, a single
#   short one does not.
# - **Repeated times.** Two rows of one series at one time are refused: average them first.
# - **Units.** Standardisation is learnt from training and kept; do not rescale by hand between fitting and asking.
#
# Exercises: `from sklearn.model_selection import GridSearchCV` and search over `lr`; `n_models=3`; `model="grud"`.

# %% [markdown]
# ## What must be true

# %%
assert scores["forecaster"] > scores["last value"] + 0.3, scores
assert (lower < expected).all() and (expected < upper).all()
assert np.array_equal(again.predict(test, times), expected), "saving or loading changed the model"
assert np.isfinite(again.predict(newcomer, [14.0, 20.0])).all()
