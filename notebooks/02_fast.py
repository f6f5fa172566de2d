# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How to choose an engine, and why it is fast
#
# Every solver repeats one small step. An *engine* is how the repetition is done; the numbers are the same. Usually you
# choose nothing: `engine="auto"` watches, and compiles what repeats. Here is what it does, and when to do otherwise.
#
# Needs no GPU and no network; about a minute on a laptop, half of it the compilation of one solve.

# %%
import time
import warnings

import matplotlib.pyplot as plt
import torch
from torch import nn

from sciode import lab, solve
from sciode.bench.timing import interleaved
from sciode.solvers.engines import CompileNotice

session = lab.setup(seed=0, device="cuda" if torch.cuda.is_available() else "cpu")
device, fastest = session.device, "graph" if session.device.type == "cuda" else "compiled"

# %% [markdown]
# ## The same solve, twice
#
# 256 van der Pol oscillators $x'' = \mu(1 - x^2)x' - x$, each with its own stiffness $\mu$ and its own step size.
# We let the plain engine and the compiled one solve them.


# %%
END = lab.scale(full=20.0, fast=10.0)


def oscillators(t, y, mu):
    x, v = y.unbind(-1)
    return torch.stack((v, mu * (1 - x * x) * v - x), -1)


def run(engine, batch=256, end=END):
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64, device=device).repeat(batch, 1)
    mu = torch.linspace(10, 0.5, batch, dtype=torch.float64, device=device)
    ts = torch.linspace(0, end, 100, dtype=torch.float64)
    return solve(oscillators, y0, ts, args=mu, method="dopri5", rtol=1e-5, atol=1e-5, engine=engine)


def done():
    return torch.cuda.synchronize() if device.type == "cuda" else None


# %%
start = time.perf_counter()
compiled = run(fastest)
done()
first_call = time.perf_counter() - start
eager = run("eager")
largest = float((compiled.ys - eager.ys).abs().max())
f"first call of {fastest}: {first_call:.1f} s, with its compilation; largest difference of the states {largest:.0e}"

# %%
timings = interleaved({engine: lambda engine=engine: (run(engine), done()) for engine in ("eager", fastest)}, 5)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=[2, 1])
for k in (0, 128, 255):
    left.plot(compiled.ts.cpu(), compiled.ys[:, k, 0].cpu(), label=rf"$\mu$ = {10 - 9.5 * k / 255:.1f}")
left.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)
left.set(xlabel="t", ylabel="x", title="three of the oscillators")
bars = right.bar(list(timings), [1e3 * timing.median for timing in timings.values()], color=["C1", "C0"])
right.bar_label(bars, fmt="%.3g")
_ = right.set(ylabel="ms a solve", title="the same result")

# %% [markdown]
# ## Where the time goes
#
# The plain engine sends every addition of every step to the device by itself, from Python. On small states the sending
# costs more than the adding. The other engines send once:
#
# | `engine=` | how a step is repeated | choose it |
# |---|---|---|
# | `"eager"` | a Python loop, operation by operation | for debugging, `print` in the field, one-off solves |
# | `"compiled"` | the whole loop is one compiled program | on a CPU, for what repeats |
# | `"graph"` | compiled steps, recorded as CUDA graphs | on a GPU, for what repeats |
# | `"auto"` | eager first; compiles what repeats | else |
#
# So the time of a solve hardly depends on the batch until the batch fills the machine. The plain engine's curve (full
# runs go further) begins with a long flat piece: that is the price of sending.

# %%
batches = [4, 16, 64, 256, *lab.scale(full=[1024, 4096], fast=[])]
flat = interleaved({batch: lambda batch=batch: (run("eager", batch, 2.0), done()) for batch in batches}, 3, 1)
figure, ax = plt.subplots(figsize=(6, 3.2))
ax.loglog(batches, [1e3 * flat[batch].median for batch in batches], "o-", label="eager")
ideal = [1e3 * flat[batches[-1]].median * batch / batches[-1] for batch in batches]
ax.loglog(batches, ideal, "--", color="0.5", label="if only arithmetic cost anything")
ax.set(xlabel="batch", ylabel="ms a solve")
_ = ax.legend()

# %% [markdown]
# ## What `auto` does
#
# A first call never stalls: `auto` begins with `eager`. Only after three solves of one kind (the field's code, the
# method, the shapes), and five seconds spent on them, it compiles that kind, once, and says so. `SCIODE_COMPILE=0`
# forbids it. What ran stands in the statistics:

# %%
with warnings.catch_warnings():
    warnings.simplefilter("error", CompileNotice)
    chosen = [run("auto", batch=8, end=1.0).stats.engine for _ in range(3)]
chosen

# %% [markdown]
# ## What falls back, and why
#
# A field that looks at a value (`.item()`, `if y.max() > 1`) makes every step wait for the host, and a program on the
# device cannot wait for you. You get the right answer from `eager`, and one notice that names the line.


# %%
def looks(t, y):
    return -y if y.abs().max().item() < 10 else -2 * y


with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    y0 = torch.linspace(0.1, 1, 12, device=device).reshape(4, 3)
    fallen = solve(looks, y0, [0.0, 1.0], engine=fastest, batch_dims=1)
notices = [str(notice.message) for notice in heard if issubclass(notice.category, CompileNotice)]
print(fallen.stats.engine, notices[0][:300], sep="\n")

# %% [markdown]
# The mend is to say it in tensors: then it can be compiled, and each sample decides for itself.


# %%
def decides(t, y):
    return torch.where(y.abs().amax(-1, keepdim=True) < 10, -y, -2 * y)


fine = solve(decides, y0, [0.0, 1.0], engine="eager")
torch.testing.assert_close(fine.ys, fallen.ys)

# %% [markdown]
# Neither can dropout be repeated (a step taken again would differ), nor a field that updates batch statistics. Call
# `.eval()` on such a module, or leave it to `eager`.
#
# ## Gradients are the same, too
#
# A loop on the device keeps one state a step, and the way back takes each step again (`adjoint="recompute"`): the exact
# gradient of what was computed, whichever engine computed it. `adjoint="direct"` takes no step again: the plain engine
# keeps autograd's tape, a loop on the device what each step's derivative needs. They agree to rounding.

# %%
with torch.random.fork_rng():
    torch.manual_seed(session.seed)
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 3)).double().to(device)
state = torch.linspace(-1, 1, 24, dtype=torch.float64, device=device).reshape(8, 3)


def gradient(adjoint, engine="eager"):
    ys = solve(lambda t, y: net(y), state, [0.0, 1.0], adjoint=adjoint, engine=engine).ys
    return torch.cat([g.ravel() for g in torch.autograd.grad(ys.square().sum(), net.parameters())])


direct, again = gradient("direct"), gradient("recompute", lab.scale(full=fastest, fast="eager"))
float((direct - again).abs().max() / direct.abs().max())

# %% [markdown]
# ## Rules of thumb
#
# - Leave `engine="auto"`; name an engine where the first seconds matter, or where a fall back should be seen early.
# - Keep shapes constant: every new shape is compiled anew. Drop or pad the last, smaller minibatch if it is rare.
# - One step size for the batch (`coupled=True`) is cheaper a step; samples of unequal stiffness want their own.
# - Large matrix products are as fast in `eager`: there the field is the time. `sciode bench engines --profile` says how
#   much of it is, and how we stand against diffrax, torchdiffeq, torchode and torchsde.
#
# Exercises: put a `print` into `oscillators` and ask for `"compiled"`; set `end=200`; plot `stats.accepted` against mu.

# %% [markdown]
# ## What must be true

# %%
assert compiled.stats.engine == fastest and eager.stats.engine == "eager"
assert largest < 1e-6, "the engines disagree"
assert (compiled.stats.steps - eager.stats.steps).abs().max() <= 2, "the engines took other steps"
assert chosen == ["eager"] * 3, "auto stalled a first call"
assert fallen.stats.engine == "eager" and "in looks" in notices[0], "a fall back went unexplained"
torch.testing.assert_close(direct, again, rtol=1e-9, atol=1e-12)
