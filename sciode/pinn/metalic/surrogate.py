"""The reward of an arm as a Gaussian process over what is known before it is played, by gpytorch.

A row of inputs holds rewards of earlier stages, the context (a task's parameters), and one set of conditions for each
stage. With N the product of kernels over all numbers and H that over all sets, the kernels to choose from are

    "additive"   s_0 N_0 + H (s_1 + s_2 N)    how hard a task is; what conditions do in all tasks; what in this one
    "hamming"    s N H                        conditions have weights; nothing is carried over to far contexts
    "agreement"  N H, all conditions alike    Li et al. (ICML 2023)

Loaded only where a bandit plays: it needs the extra "pinn".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

try:
    with warnings.catch_warnings():
        # linear_operator, beneath gpytorch, compiles a function by torch's deprecated way when it is loaded.
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        import gpytorch
        from gpytorch.constraints import GreaterThan, Positive
        from gpytorch.priors import GammaPrior
except ImportError as fault:
    raise ImportError('bandits need gpytorch: pip install "sciode[pinn]"') from fault

from sciode.pinn.metalic.kernels import agreement, hamming, squared_exponential
from sciode.solvers.suggest import choose

__all__ = ["KERNELS", "Layout", "Surrogate", "fitted"]

KERNELS = ("additive", "hamming", "agreement")
_LEAST_NOISE = 1e-4
_STEEP = 1e10
"""In the place of a likelihood that cannot be computed."""


@dataclass(frozen=True)
class Layout:
    """Columns of a row, in order: rewards of `earlier` stages, a context of `axes` numbers, earlier + 1 sets of
    `conditions` each.
    """

    earlier: int
    axes: int
    conditions: int

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.earlier + self.axes + (self.earlier + 1) * self.conditions

    @property
    def numbers(self) -> list[tuple[int, ...]]:
        """Columns that share a length: each earlier reward, and the context."""
        context = tuple(range(self.earlier, self.earlier + self.axes))
        return [*((k,) for k in range(self.earlier)), context]

    @property
    def sets(self) -> list[tuple[int, ...]]:
        """Columns of each stage's set."""
        begin = self.earlier + self.axes
        return [
            tuple(range(begin + k * self.conditions, begin + (k + 1) * self.conditions))
            for k in range(self.earlier + 1)
        ]


@final
class NumberKernel(gpytorch.kernels.Kernel):
    """`squared_exponential` on some columns, with one length."""

    has_lengthscale = True

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **rest: Any) -> Tensor:
        """Return the kernel, [n, m], or [n] of pairs if diag."""
        one, other = (x1, x2) if diag else (x1.unsqueeze(-2), x2.unsqueeze(-3))
        return squared_exponential(one, other, self.lengthscale.squeeze())


@final
class SetKernel(gpytorch.kernels.Kernel):
    """`hamming` with a weight a condition, or `agreement` with one strength for all, on some columns."""

    def __init__(self, kind: str, active_dims: tuple[int, ...]) -> None:
        super().__init__(active_dims=active_dims)
        alike = kind == "agreement"
        self.formula = agreement if alike else hamming
        self.register_parameter("raw_weights", torch.nn.Parameter(torch.zeros(1 if alike else len(active_dims))))
        self.register_constraint("raw_weights", Positive())
        if not alike:
            self.register_prior("weights_prior", _prior(), lambda own: own.weights)

    @property
    def weights(self) -> Tensor:
        """What the formula takes, [conditions] or [1]."""
        positive: Any = self.raw_weights_constraint
        return positive.transform(self.raw_weights)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **rest: Any) -> Tensor:
        """Return the kernel, [n, m], or [n] of pairs if diag."""
        one, other = (x1, x2) if diag else (x1.unsqueeze(-2), x2.unsqueeze(-3))
        return self.formula(one, other, self.weights)


@final
class _Process(gpytorch.models.ExactGP):
    def __init__(
        self, inputs: Tensor, targets: Tensor, layout: Layout, kind: str, precision: tuple[float, float]
    ) -> None:
        likelihood: Any = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=GreaterThan(_LEAST_NOISE))
        likelihood.noise_covar.register_prior("precision", GammaPrior(*precision), lambda own: 1 / own.noise)
        super().__init__(inputs, targets, likelihood)
        self.mean_module: Any = gpytorch.means.ConstantMean()
        self.covar_module = _kernel(layout, kind)
        self.to(targets.dtype)
        with torch.no_grad():
            self.mean_module.constant.fill_(float(targets.mean()))
        likelihood.noise = 0.01

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def _kernel(layout: Layout, kind: str) -> gpytorch.kernels.Kernel:
    """See the head of this file."""

    def scaled(kernel: gpytorch.kernels.Kernel) -> gpytorch.kernels.Kernel:
        return gpytorch.kernels.ScaleKernel(kernel, outputscale_prior=_prior())

    def numbers() -> gpytorch.kernels.Kernel:
        prior = {} if kind == "agreement" else {"lengthscale_prior": _prior()}
        return _product([NumberKernel(active_dims=columns, **prior) for columns in layout.numbers])

    sets = _product([SetKernel(kind, columns) for columns in layout.sets])
    if kind == "additive":
        return scaled(numbers()) + scaled(sets) + scaled(numbers() * sets)
    return scaled(numbers() * sets) if kind == "hamming" else numbers() * sets


def _product(kernels: Sequence[gpytorch.kernels.Kernel]) -> gpytorch.kernels.Kernel:
    total = kernels[0]
    for one in kernels[1:]:
        total = total * one
    return total


def _prior() -> GammaPrior:
    # Its mode is 1: a condition matters, and tasks differ, until rewards say otherwise. With a mode at 0 agents never
    # try conditions that they have not tried.
    return GammaPrior(2.0, 1.0)


@final
@dataclass(frozen=True)
class Surrogate:
    """A process that has seen rewards; its own numbers were fitted to the first `seen` of them."""

    process: Any
    layout: Layout
    kernel: str
    precision: tuple[float, float]
    seen: int

    def given(self, inputs: Tensor, targets: Tensor) -> Surrogate:
        """Return the process with the same numbers of its own, conditioned on these rewards instead."""
        with _exactly():
            process = _Process(inputs, targets, self.layout, self.kernel, self.precision)
            process.load_state_dict(self.process.state_dict())
        return replace(self, process=process)

    def joint(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean [Q] and covariance [Q, Q] of the rewards at rows [Q, width], without noise; no gradients."""
        self.process.eval()
        with torch.no_grad(), _exactly():
            found = self.process(inputs)
            return found.mean.detach(), found.covariance_matrix.detach()

    @property
    def weights(self) -> Tensor:
        """How much each condition matters in the process' own stage, [conditions]; one number for "agreement"."""
        kernels = [part for part in self.process.modules() if isinstance(part, SetKernel)]
        return kernels[-1].weights.detach().clone()

    @property
    def noise(self) -> float:
        """The variance of rewards around the process."""
        return float(self.process.likelihood.noise.detach())


def fitted(
    inputs: Tensor,
    targets: Tensor,
    layout: Layout,
    kernel: str = "additive",
    precision: tuple[float, float] = (100.0, 1.0),
    steps: int = 50,
) -> Surrogate:
    """Fit lengths, weights, scales, mean and noise to rewards.

    The exact marginal likelihood with priors is maximised from the same start every time, by L-BFGS; the best that it
    met is kept. Scales, lengths and each condition's weight have the prior Gamma(2, 1), except in "agreement".

    Parameters
    ----------
    inputs [n, width], targets [n]: float64. layout: of the rows. kernel: one of `KERNELS`. precision: concentration and
        rate of the Gamma prior of 1 / noise; (100, 1) is that of Li et al. steps: of L-BFGS.

    Raises ValueError for shapes or a kernel that do not fit, or rewards that are not finite.
    """
    choose("kernel", kernel, KERNELS)
    if inputs.ndim != 2 or inputs.shape[1] != layout.width or targets.shape != inputs.shape[:1] or not len(targets):
        raise ValueError(f"inputs must be [n, {layout.width}] and targets [n], got {inputs.shape} and {targets.shape}")
    if not bool(targets.isfinite().all() & inputs.isfinite().all()):
        raise ValueError("rewards and contexts must be finite: `reward_of` gives failures a number")
    with _exactly():
        process = _Process(inputs, targets, layout, kernel, precision)
        _maximise(process, inputs, targets, steps)
    return Surrogate(process, layout, kernel, precision, len(targets))


def _maximise(process: _Process, inputs: Tensor, targets: Tensor, steps: int) -> None:
    likelihood: Any = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)
    parameters = list(process.parameters())
    best = (math.inf, _flat(parameters))

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best
        torch.nn.utils.vector_to_parameters(torch.from_numpy(values.copy()), parameters)
        try:
            value = -likelihood(process(inputs), targets)
            slopes = torch.autograd.grad(value, parameters)
        except RuntimeError:  # gpytorch's NotPSDError and NanError
            return _STEEP, np.zeros_like(values)
        found, slope = value.item(), torch.cat([one.reshape(-1) for one in slopes]).numpy()
        if not (math.isfinite(found) and np.isfinite(slope).all()):
            return _STEEP, np.zeros_like(values)
        if found < best[0]:
            best = (found, values.copy())
        return found, slope

    process.train()
    minimize(loss, best[1], jac=True, method="L-BFGS-B", options={"maxiter": steps})
    torch.nn.utils.vector_to_parameters(torch.from_numpy(best[1]), parameters)


def _flat(parameters: list[torch.nn.Parameter]) -> NDArray[np.float64]:
    return torch.nn.utils.parameters_to_vector(parameters).detach().numpy().copy()


@contextmanager
def _exactly() -> Iterator[None]:
    """Cholesky whatever the size: gpytorch's iterative ways draw probes from torch's default generator."""
    with (
        gpytorch.settings.fast_computations(False, False, False),
        gpytorch.settings.max_cholesky_size(2**31),
        gpytorch.settings.fast_pred_var(False),
        gpytorch.settings.debug(False),
    ):
        yield
