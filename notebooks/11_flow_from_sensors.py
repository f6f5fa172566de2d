# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A flow from a few sensors
#
# A hundred sensors stand in a flow. What they have read is all we have: no picture of the whole, no equation. An
# observer learns from their readings to say what the flow does anywhere and at any time, from one look at them.
#
# Needs no GPU and no network; some minutes on a laptop. `pip install "sciode[lab,graph]"` brings all it imports.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML

from sciode import lab
from sciode.data.flow_recipes import make_flows
from sciode.lab.flows import answered, flow_film, flow_frame
from sciode.observers import Design, Observer, QuadraticLaw, Reading, edges_between, outside_hull
from sciode.observers.interpolation import persistence
from sciode.observers.metrics import split_errors

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## The flow, and the sensors
#
# Vorticity of Navier-Stokes flow in a periodic square, by our own solver. The observer never sees this picture: only
# the values at the dots. Lines join each sensor to its neighbours; the square has no walls, so that some neighbours
# are on the other side.

# %%
every = make_flows("vorticity", lab.scale(full=40, fast=8), seed=session.seed, n=32, burn_in=5.0, frames=20, dt=0.1)
train, test = every[:-2], every[-2:]
rng = np.random.default_rng(session.seed)
sensors = rng.choice(32 * 32, 100, replace=False)
places, times = every[0].points.numpy(), every[0].times.numpy()
edges = edges_between(every[0].points[sensors], every.space)

first = test[0].values[0, :, 0]
size = float(first.abs().max())
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharex=True, sharey=True)
flow_frame(axes[0], test, 0, 0, limits=(-size, size), bar=False)
axes[0].set_title(f"the flow at t = {times[0]:g}")
here = places[sensors]
way = every.space.difference(every[0].points[sensors][edges[0]], every[0].points[sensors][edges[1]]).numpy()
axes[1].quiver(*here[edges[0]].T, *way.T, angles="xy", scale_units="xy", scale=1, width=0.002, headwidth=0, color="0.7")
colours = {"cmap": "RdBu_r", "vmin": -size, "vmax": size}
dots = axes[1].scatter(*here.T, c=first[sensors], **colours, s=25, zorder=3, edgecolors="0.5", linewidths=0.3)
axes[1].set(xlabel="x", aspect="equal", title="what is read of it", xlim=(-0.02, 1), ylim=(-0.02, 1))
axes[1].grid(False)
figure.colorbar(dots, ax=axes, label="vorticity", shrink=0.8)
plt.show()

# %% [markdown]
# ## Learn from readings alone
#
# `fit(positions, times, values)` takes plain arrays; missing readings are NaN, and flows may have sensors and clocks of
# their own. Each step hides a quarter of the sensors and asks for what they read: so the observer learns to answer
# between sensors. `base="fitted"`: it corrects a smooth surface through what it foresees of the sensors, of the order
# that tells sensors left out in turn best. `waves=6`: in every step each sensor hears of all others by their long
# waves, for vorticity here moves the flow everywhere.
#
# Both losses are of the places asked and of the sensors themselves, added up. Validation too hides a quarter of the
# sensors of its flows, and asks at these alone. In the end training is ahead: 30 flows are soon known by heart.

# %%
observer = Observer(
    design=Design(width=32, layers=2, attention="nearest", base="fitted", waves=6),
    space=every.space,
    epochs=lab.scale(full=80, fast=8),
    batch_size=4,
    queries=128,
    lr=2e-3,
    device=str(session.device),
)
observer.fit(here, times, train.stacked()[:, :, sensors].numpy())
epochs = observer.history_.epochs

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot([epoch.train_loss for epoch in epochs], label="training")
axis.plot([epoch.validation_loss for epoch in epochs], label="validation, other flows")
axis.set(xlabel="epoch", ylabel="loss, of the variance", yscale="log")
axis.legend()
plt.show()

# %% [markdown]
# ## Anywhere, any time
#
# A flow that nobody has seen: the sensors are read once, at its beginning. The answer is a function of place and time;
# here it is asked on the whole grid.

# %%
flow = test[0]
start = Reading(here, flow.values[0, sensors].numpy(), float(flow.times[0]))
found = observer.predict(places, times, start)
still = persistence(here, flow.values[0, sensors].numpy(), places, len(times), every.space)

figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained", sharex=True, sharey=True)
size = float(flow.values.abs().max())
for column, frame in enumerate((0, 8, 16)):
    for row, values in enumerate((flow.values.numpy(), found.values)):
        shown = values[frame].reshape(32, 32).T
        picture = axes[row, column].imshow(
            shown, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r", vmin=-size, vmax=size
        )
        axes[row, column].grid(False)
        axes[row, column].set_title(f"{('truth', 'observer')[row]}, t = {times[frame]:g}")
axes[0, 0].set(xticks=(0.2, 0.5, 0.8), yticks=(0.2, 0.5, 0.8))
for ax in axes[1]:
    ax.set_xlabel("x")
for ax in axes[:, 0]:
    ax.set_ylabel("y")
figure.colorbar(picture, ax=axes, label="vorticity", shrink=0.6)
plt.show()

# %% [markdown]
# The same as a film. The titles would say where times are beyond those of training, or the forecast has run away; what
# lies outside the sensors' hull would be hatched, but a periodic box has no outside.

# %%
step = lab.scale(full=1, fast=16)
moving = replace(test, flows=(flow.between(0, len(times), step),))
answer = observer.predict(places, times[::step], start)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharex=True, sharey=True)
film = flow_film(
    axes, moving, beside=answered(moving, answer.values, times[::step]), flags=answer, headings=("truth", "observer")
)
with plt.rc_context({"savefig.dpi": 70}):
    page = film.to_jshtml()
plt.close(figure)
HTML(page)

# %% [markdown]
# How far off, at the sensors and between them? "Still" keeps the first readings, interpolated.

# %%
inside = np.isin(np.arange(32 * 32), sensors)
frames = np.ones(len(times), dtype=bool)
spread = float(flow.values.std())
errors = {
    name: split_errors(values, flow.values.numpy(), inside, frames, spread)
    for name, values in (("observer", found.values), ("still", still))
}
for name, error in errors.items():
    print(f"{name:10s} at sensors {error.in_x_in_t:.3f}, between them {error.ext_x_in_t:.3f} of the variance")

# %% [markdown]
# ## Or find the equation
#
# Most of that error is made in foreseeing, little between the sensors. In a periodic box there is a shorter way: flows
# obey equations whose terms are products of two derivatives at most, or of what pressure makes of them.
# `QuadraticLaw` finds the coefficients of all such terms, from the same readings, by some steps of Gauss-Newton.

# %%
law = QuadraticLaw(space=every.space, side=24, rounds=lab.scale(full=(6, 3), fast=(3, 1)), device=str(session.device))
law.fit(here, times, train.stacked()[:, :, sensors].numpy())
told = {"still": still, "observer": found.values, "law": law.predict(places, times, start)}
errors["law"] = split_errors(told["law"], flow.values.numpy(), inside, frames, spread)
print(
    f"law        at sensors {errors['law'].in_x_in_t:.1e}, between them {errors['law'].ext_x_in_t:.1e} of the variance"
)

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
for name, values in told.items():
    missed = (values - flow.values.numpy())[:, ~inside] / spread
    axis.plot(times, np.square(missed).mean((1, 2)), label=name)
axis.set(xlabel="time", ylabel="error between sensors,\nof the variance", yscale="log")
axis.legend()
plt.show()

# %% [markdown]
# ## What is flagged, and what is kept
#
# Later times than training had are answered, and flagged; `rollout` begins again after each horizon instead. In a
# domain with an outside, places outside the sensors' hull are flagged too. So is a forecast that runs away: `away` says
# from which time on it is far out of the range of all that the sensors read in training.

# %%
late = observer.rollout(places[:5], [times[0] + 2 * observer.horizon_], start)
print("later than training:", late.beyond, "outside:", late.outside, "ran away:", late.away)
observer.save(session.out / "observer.safetensors")
again = Observer.load(session.out / "observer.safetensors", device="cpu")

# %% [markdown]
# Where to go on: `sciode train observer_flows` compares observers, their ablations and their opponents by the share of
# points that are sensors; `Design(dynamics="ode")` solves the sensors' dynamics with adaptive steps, `causal=True`
# keeps a query from reading later times, `attention` says how a place reads the sensors.

# %% [markdown]
# ## What must be true

# %%
assert epochs[-1].train_loss < lab.scale(full=0.5, fast=0.9) * epochs[0].train_loss, "it learns"
assert lab.fast() or errors["observer"].ext_x < errors["still"].ext_x, "it foresees more than that nothing happens"
assert errors["law"].ext_x < lab.scale(full=0.1, fast=1.0) * errors["observer"].ext_x, "an equation foresees better"
seam = observer.predict(places[:3] + np.array([1.0, -1.0]), times[:2], start).values
assert np.allclose(seam, found.values[:2, :3], atol=1e-4), "the box has no seam"
assert np.array_equal(
    again.predict(places[:3], times[:2], start).values, observer.predict(places[:3], times[:2], start).values
)
assert not found.away.any(), "it stays where sensors have read"
assert page.count("data:image/png") == len(moving[0].times), "a film has all frames"
assert late.beyond.all() and not outside_hull(every[0].points, every[0].points[sensors], every.space).any()
