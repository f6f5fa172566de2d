"""PINA (Coscia, Ivagnes, Demo & Rozza, JOSS 8, 2023; package pina-mathlab) as a contestant of `pinn_rivals`.

Points, first weights and weights of the loss are ours, the rest is PINA's: its solver, its `Trainer` on Lightning,
without a logger, a bar and checkpoints, its derivatives without checks (`fast_grad`), its switch from Adam to torch's
L-BFGS, which has the settings that DeepXDE gives it. An epoch of L-BFGS is as many iterations as lie between two looks.
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sciode.experiments.curves import Entry
from sciode.experiments.pinn_contest import DTYPES, WEIGHTS, Given, Journal, Recipe, Task, given
from sciode.training import threads

__all__ = ["train"]

_MANY = 10**9
_AXES = {"poisson": ("x", "y"), "burgers": ("x", "t")}


def train(task: Task, recipe: Recipe) -> list[Entry]:
    """Adam, then L-BFGS."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), threads(1), warnings.catch_warnings():
        importlib.import_module("pina")
        warnings.simplefilter("ignore")
        for name in ("lightning.pytorch", "pytorch_lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.set_default_dtype(DTYPES[recipe.dtype])
        torch.manual_seed(task.seed)
        # What torch loads when it is first asked are seconds that are no row's.
        _trained(replace(task, seconds=0.0, every=2), recipe._replace(warmup=2))
        return _trained(task, recipe).curve


def _trained(task: Task, recipe: Recipe) -> Journal:
    pina = importlib.import_module("pina")
    optim, solver = importlib.import_module("pina.optim"), importlib.import_module("pina.solver")
    callback = importlib.import_module("pina.callback")
    scalar = importlib.import_module("pina.weighting").ScalarWeighting
    told = given(task)
    net = _Scaled(told).to(task.device, DTYPES[recipe.dtype])
    journal = Journal(task, told.known, net, recipe.dtype)
    searched = optim.TorchOptimizer(
        torch.optim.LBFGS,
        lr=1.0,
        max_iter=task.every,
        history_size=100,
        tolerance_grad=1e-8,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    pinn = solver.PhysicsInformedSingleModelSolver(
        problem=_problem(task, told, DTYPES[recipe.dtype]),
        model=net,
        optimizer=optim.TorchOptimizer(torch.optim.Adam, lr=recipe.lr),
        weighting=scalar({"equation": WEIGHTS.equation, **{one.name: WEIGHTS.data for one in told.told}}),
    )
    trainer = pina.Trainer(
        solver=pinn,
        max_epochs=_MANY,
        callbacks=[callback.SwitchOptimizer(searched, recipe.warmup), _looking(task, recipe, journal)],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        shuffle=False,
        **_device(task.device),
    )
    trainer.train()
    return journal


def _looking(task: Task, recipe: Recipe, journal: Journal) -> Any:
    """A callback that looks at the error, and ends the training when the time is over."""

    class Looking(importlib.import_module("lightning.pytorch.callbacks").Callback):
        def on_train_start(self, trainer: Any, _: Any) -> None:
            journal.watch = type(journal.watch)(task.device)
            journal.look(0, 0)

        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            done = trainer.current_epoch + 1
            if done <= recipe.warmup:
                if done % task.every == 0 or done == recipe.warmup:
                    trainer.should_stop |= journal.look(0, done)
                return
            memory = next(iter(trainer.optimizers[0].state.values()))
            before = journal.curve[-1]
            stuck = before.stage == 1 and memory["n_iter"] <= before.iteration + 1
            trainer.should_stop |= journal.look(1, memory["n_iter"]) or stuck

    return Looking()


def _device(device: str) -> dict[str, Any]:
    """Lightning's words for a device of torch's."""
    where = torch.device(device)
    if where.type == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    return {"accelerator": "gpu", "devices": [where.index or 0]}


class _Scaled(nn.Module):
    """Linear layers and tanh, with our first weights, behind the same map of the box."""

    centre: Tensor
    reach: Tensor

    def __init__(self, told: Given) -> None:
        super().__init__()
        self.register_buffer("centre", told.centre)
        self.register_buffer("reach", told.half)  # a module has a method "half"
        sizes = [2, *(len(bias) for _, bias in told.layers)]
        model = importlib.import_module("pina.model")
        self.net = model.FeedForward(2, 1, layers=sizes[1:-1], func=nn.Tanh)
        linears = [part for part in self.net.modules() if isinstance(part, nn.Linear)]
        with torch.no_grad():
            for linear, (weight, bias) in zip(linears, told.layers, strict=True):
                linear.weight.copy_(weight.T)
                linear.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """u [N, 1] at points [N, 2]."""
        return self.net((x.as_subclass(Tensor) - self.centre) / self.reach)


def _problem(task: Task, told: Given, dtype: torch.dtype) -> Any:
    """Our points as conditions: those of the equation, and those with values."""
    pina = importlib.import_module("pina")
    equation = importlib.import_module("pina.equation").Equation
    domain = importlib.import_module("pina.domain").CartesianDomain
    axes = list(_AXES[task.family])

    def labelled(values: Tensor, labels: list[str]) -> Any:
        return pina.LabelTensor(values.to(dtype), labels)

    made = EQUATIONS[task.family](told.parameter)
    own = {"equation": pina.Condition(input=labelled(told.inside, axes), equation=equation(made))}
    for one in told.told:
        own[one.name] = pina.Condition(input=labelled(one.points, axes), target=labelled(one.values, ["u"]))

    # PINA puts coordinates of one kind in alphabetical order, and those of space before that of time.
    problem = importlib.import_module("pina.problem")
    kinds = (problem.TimeDependentProblem,) if "t" in axes else ()
    space = {axis: [-1.0, 1.0] for axis in axes if axis != "t"}  # all points are given: domains are not looked at
    members = {
        "output_variables": ["u"],
        "spatial_domain": domain(space),
        "temporal_domain": domain({"t": [-1.0, 1.0]}),
        "conditions": own,
    }
    built = type("Given", (*kinds, problem.SpatialProblem), members)()
    assert list(built.input_variables) == axes
    return built


def _poisson(sharpness: float) -> Callable[[Any, Any], Any]:
    operator = importlib.import_module("pina.operator")
    top = 4 * torch.erf(torch.tensor(sharpness / 4, dtype=torch.float64)).item() ** 2

    def bump(x: Tensor) -> Tensor:
        return torch.erf(sharpness * (x - 0.25)) - torch.erf(sharpness * (x - 0.75))

    def residual(points: Any, u: Any) -> Any:
        x, y = points.as_subclass(Tensor).detach().split(1, 1)
        return operator.fast_laplacian(u, points, ["u"], ["x", "y"]) - bump(x) * bump(y) / top

    return residual


def _burgers(viscosity: float) -> Callable[[Any, Any], Any]:
    operator = importlib.import_module("pina.operator")

    def residual(points: Any, u: Any) -> Any:
        slope = operator.fast_grad(u, points, ["u"], ["x", "t"])
        along, later = slope.extract(["dudx"]), slope.extract(["dudt"])
        bent = operator.fast_grad(along, points, ["dudx"], ["x"])
        plain = (one.as_subclass(Tensor) for one in (u, along, later, bent))
        value, along, later, bent = plain
        return later + value * along - viscosity * bent

    return residual


EQUATIONS: Mapping[str, Callable[[float], Callable[[Any, Any], Any]]] = {"poisson": _poisson, "burgers": _burgers}
"""parameter -> (points, u) -> residual, by family."""
