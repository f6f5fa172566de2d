# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A PDE in a few hundred numbers: neural fields moved through time
#
# A network of space alone, u(x; theta), is fitted to the initial values. Then its weights are moved from time to time:
# either each step minimises the residual of an implicit time scheme, or the weights obey an ODE of their own, the
# projection of the equation onto what the network can follow. No mesh, no training over space and time at once.
#
# Needs no GPU and no network; three minutes on a laptop. `pip install "sciode[lab]"` brings all it imports.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML

from sciode import lab
from sciode.insr import Body, Fit, Galerkin, Points, deform, evolve
from sciode.lab import evolutions
from sciode.lab.plots import deformed
from sciode.nn import HardBoundary, PeriodicEmbedding, Siren, Solenoidal
from sciode.pde import Box, Load, Material, Plane, Setup, curl, problem_of
from sciode.pde.grid_advection import advect
from sciode.pde.grid_fluid import simulate
from sciode.pde.spectral import solve_periodic
from sciode.training import Descent, isolated_rng

session = lab.setup(seed=0, device="cpu")

# %% [markdown]
# ## A Gaussian that travels
#
# u_t + u_x / 4 = 0: the exact solution is the initial values, moved. Problems are data: their equation, walls, initial
# values and, here, the exact solution come with them.

# %%
problem = problem_of("advection")
width, count, end = lab.scale(full=16, fast=8), lab.scale(full=1600, fast=500), lab.scale(full=4.0, fast=0.5)
with isolated_rng(session.seed):
    field = Siren(1, 1, width, lab.scale(full=2, fast=1), omega=10.0, embedding=PeriodicEmbedding([4.0])).double()

fit = Fit(Descent(iterations=lab.scale(full=1500, fast=400)))
settings = {"dt": 0.05, "points": Points(count, weight=0.0), "fit": fit, "seed": session.seed}
moved = Galerkin("rk4", fixed=True, damping=1e-10)
galerkin = evolve(problem, field, [0.0, end], mode="galerkin", galerkin=moved, **settings)
midpoint = evolve(problem, field, [0.0, end], scheme="implicitmidpoint", **settings)
print(f"{galerkin.thetas.shape[1]} weights; steps: {galerkin.seconds[-1]:.2f} s and {midpoint.seconds[-1]:.2f} s")

# %% [markdown]
# A trajectory can be asked anywhere, at any time between the first and the last.


# %%
def exact(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.vmap(lambda point: problem.exact(point, t))(x)


def grid(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.from_numpy(on_grid.at(x[:, 0].numpy(), round(t / 0.05))).unsqueeze(1)


on_grid = advect(problem, galerkin.thetas.shape[1], 0.05, round(end / 0.05), interpolation="cubic")
x = torch.linspace(-2, 2, 801, dtype=torch.float64).unsqueeze(1)
fields = {"Galerkin, rk4": galerkin, "midpoint rule": midpoint, "cubic grid, as many numbers": grid}

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
evolutions.space_time(left, galerkin, np.linspace(0, end, 41), problem.lower, problem.upper)
evolutions.error_over_time(middle, fields, exact, x, galerkin.times[1:])
evolutions.progress_of_steps(right, midpoint.steps)
right.set_title("midpoint rule, step by step")
plt.show()

# %% [markdown]
# The same as a film, the exact solution broad and grey beneath it; `evolutions.save_animation` writes it as a .gif or
# .mp4.

# %%
figure, axes = plt.subplots(figsize=(6, 3))
frames = np.linspace(0, end, lab.scale(full=33, fast=3))
film = evolutions.animate(axes, galerkin, frames, problem.lower, problem.upper, exact=exact)
plt.close(figure)
HTML(film.to_jshtml())

# %% [markdown]
# The midpoint rule's error is its own: an exact field would have it, too. The Galerkin path has no time scheme of low
# order in its way. The grid is a strong opponent here, for moving a profile is all it has to do.
#
# ## Phases that part: Allen-Cahn in two dimensions
#
# Each step says how it went. In Galerkin mode `loss` is the share of u_t that the network could not follow: a network
# says by itself where it is too small, or where steps are too long. By default `sciode.solve` chooses these: what held
# for a profile that only moves, one rk4 step a step, loses more than one digit here.

# %%
phases = problem_of("allencahn")
with isolated_rng(session.seed):
    field = Siren(2, 1, lab.scale(full=16, fast=10), lab.scale(full=2, fast=1), omega=4.0,
                  embedding=PeriodicEmbedding([2 * math.pi, 2 * math.pi])).double()  # fmt: skip
ends = [0.0, 1.0, 2.0] if not session.fast else [0.0, 0.2, 0.4]
settings |= {"dt": 0.1, "points": Points(lab.scale(full=2500, fast=500)), "accept": 0.05}
found = evolve(phases, field, ends, mode="galerkin", **settings)
print(f"{found.thetas.shape[1]} weights; fit {found.steps[0].loss:.1e}; not followed: at most "
      f"{max(step.loss for step in found.steps[1:]):.1%}")  # fmt: skip

# %%
side = torch.linspace(0, 2 * math.pi, 65, dtype=torch.float64)[:-1]
points = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
reference = solve_periodic(phases, 64, ends, dt=0.01)
differences = []
figure, axes = plt.subplots(2, len(ends), figsize=(3.6 * len(ends), 6), sharex=True, sharey=True, layout="constrained")
for column, t in enumerate(ends):
    true = torch.as_tensor(reference.values[column])
    differences.append(found(points, t).reshape(true.shape) - true)
    evolutions.field_image(axes[0, column], found, t, phases.lower, phases.upper, limits=(-1.5, 1.5), bar=column == 2)
    low = axes[1, column].imshow(differences[-1][..., 0].T, origin="lower", cmap="PuOr", extent=(0, 6.28, 0, 6.28))
    axes[1, column].grid(False)
    axes[1, column].set_title("network - spectral")
    figure.colorbar(low, ax=axes[1, column], shrink=0.8)
    axes[0, column].label_outer()
plt.show()

# %% [markdown]
# ## Vortices without a pressure
#
# An incompressible flow keeps div u = 0; a pressure sees to it. A velocity that is the curl of a stream function has
# no divergence, whatever its weights are; with psi = 0 on the walls it does not cross them either. The gradient of the
# pressure has no curl, so the curl of the equation is all there is to follow. Taylor and Green's vortices stand still:
# what a method changes is its error, and the energy it loses is its own dissipation.

# %%
vortices, box = problem_of("taylorgreen"), Box((-1.0, -1.0), (1.0, 1.0))
with isolated_rng(session.seed):
    psi = HardBoundary(Siren(2, 1, lab.scale(full=10, fast=6), lab.scale(full=2, fast=1), omega=5.0),
                       lambda x: 0.0 * x[..., :1], box.vanishing)  # fmt: skip
until = lab.scale(full=1.0, fast=0.2)
settings |= {"dt": 0.1, "points": Points(lab.scale(full=1000, fast=200)), "accept": 0.05}
steady = Galerkin("rk4", fixed=True, damping=1e-6)
flow = evolve(vortices, Solenoidal(psi).double(), [0.0, until], mode="galerkin", galerkin=steady, **settings)
print(f"{flow.thetas.shape[1]} weights; fit {flow.steps[0].loss:.1e}, last step {flow.steps[-1]}")

# %%
axis = torch.linspace(-0.98, 0.98, 50, dtype=torch.float64)
places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
kinetic = (flow(places, flow.times) ** 2).sum(-1).mean(-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
rotation = torch.vmap(curl(flow.field(-1)))(places).detach().reshape(50, 50)
picture = left.imshow(rotation.T, origin="lower", extent=(-1, 1, -1, 1), cmap="RdBu")
left.set_title(f"curl u at t = {flow.times[-1]:g}")
left.grid(False)
figure.colorbar(picture, ax=left)
lost = (1 - kinetic / kinetic[0]).abs()
right.semilogy(flow.times[1:], lost[1:], label=f"network, {4 * flow.thetas.shape[1]} bytes")
for splitting in ("chorin", "reflect"):
    grid = simulate(vortices, 57, 0.05, round(until / 0.05), interpolation="cubic", splitting=splitting)
    gone = np.abs(1 - grid.energy / grid.energy[0])
    right.semilogy(grid.ts[1:], gone[1:], "--", label=f"cubic grid, {splitting}, {grid.memory} bytes")
right.set(xlabel="t", ylabel="share of kinetic energy lost")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# A network that knows nothing of divergence takes `scheme=Splitting(pressure)`: advect, find the pressure by a network
# of its own, project. `sciode train insr_taylor_green` and `insr_two_scale` compare all of them with grids.

# %% [markdown]
# ## A solid that falls: the least of an energy
#
# An elastic body is at x + u(x; theta), and each step of implicit Euler is the least of an energy: inertia, strain,
# load and contact. All of these are squares, so that the same least-squares steps find it. Each step tells its
# energies, how deep the body has gone into the floor, and what share of it is turned over.

# %%
setup = Setup(Material(60.0, 100.0), 2, dt=0.05, steps=lab.scale(full=16, fast=8), loads=(Load((0.0, -9.8)),),
              obstacles=(Plane((0.0, 1.0), -1.1),), stiffness=1e4)  # fmt: skip
body = Body(setup, Box((-1.0, -1.0), (1.0, 1.0)), contact="surface")
with isolated_rng(session.seed):
    field = Siren(2, 2, lab.scale(full=12, fast=5), 1, omega=2.0).double()
count = lab.scale(full=512, fast=128)
fallen = deform(body, field, points=Points(count, 512, how="sobol"), attempts=1, failing="go on", seed=session.seed)
told = [step.penalties for step in fallen.steps[1:]]

side = torch.linspace(-1, 1, 17, dtype=torch.float64)
lattice = torch.cartesian_prod(side, side)
corners = (torch.cartesian_prod(torch.arange(16), torch.arange(16)) @ torch.tensor([17, 1])).unsqueeze(1)
figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
for panel, k in zip(axes[:3], np.linspace(0, len(told), 3).astype(int), strict=True):
    deformed(panel, lattice + fallen(lattice, fallen.times[k]), corners + torch.tensor([0, 17, 18, 1]))
    panel.axhspan(-1.4, -1.1, color="0.85", zorder=0)
    panel.set(title=f"t = {fallen.times[k]:.2f}", ylim=(-1.4, 1.1))
for what in ("kinetic", "elastic", "contact"):
    axes[3].plot(fallen.times[1:], [one[what] for one in told], label=what)
axes[3].set(xlabel="t", ylabel="energy")
axes[3].legend()
plt.show()

# %% [markdown]
# Where to go on: `sciode train insr_advection` and `insr_elastic` make the other tables; `folder=` keeps every step
# and lets an interrupted evolution go on; `optimiser=` and `points=` say how a step is optimised and where it is looked
# at (`Points(aimed=0.5)`: half of the points where the residual is large). A problem of your own is one
# `sciode.pde.Evolution`.

# %% [markdown]
# ## What must be true

# %%
assert galerkin.complete and midpoint.complete and found.complete and flow.complete
size = exact(x, end).norm()
last, floor = ((u(x, end) - exact(x, end)).norm() / size for u in (galerkin, midpoint))
assert last < 1e-4 and last < 0.1 * floor, float(last)
assert float(lost[-1]) < lab.scale(full=0.005, fast=0.05)
assert max(step.loss for step in found.steps[1:]) < lab.scale(full=0.01, fast=0.2)
highest = max(1.0, float(torch.vmap(phases.initial)(points).abs().max()))
assert float(found(points, ends[-1]).abs().max()) < 1.05 * highest, "the equation has a maximum principle"
assert differences[-1].abs().max() < lab.scale(full=0.01, fast=0.5)
assert max(one["penetration"] for one in told) < 0.05 and max(one["inverted"] for one in told) == 0.0
supply = -min(one["potential"] for one in told)
assert all(one["kinetic"] + one["elastic"] + one["contact"] < supply for one in told), "no energy from nowhere"
