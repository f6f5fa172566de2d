"""DeepXDE (Lu, Meng, Mao & Karniadakis, SIAM Review 63, 2021) as a contestant of `pinn_rivals`.

It chooses its backend, device and dtype when it is imported, for its whole process: rows are made in processes of their
own. Points, first weights and weights of the loss are ours, the rest is DeepXDE's: its loop, its derivatives, its
L-BFGS (torch's, at its own settings). Its tests of the loss, which a user would ask for seldom, are not counted.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sciode.experiments.curves import Entry
from sciode.experiments.pinn_contest import WEIGHTS, Given, Journal, Recipe, Task, given
from sciode.training import threads

__all__ = ["train"]

_MANY = 10**9


def train(task: Task, recipe: Recipe) -> list[Entry]:
    """Adam, then L-BFGS."""
    os.environ["DDE_BACKEND"] = "pytorch"
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), threads(1):
        dde = importlib.import_module("deepxde")
        torch.set_default_device(task.device)
        dde.config.set_default_float(recipe.dtype)
        # What torch loads when it is first asked are seconds that are no row's.
        _trained(dde, replace(task, seconds=0.0, every=2), recipe._replace(warmup=2))
        return _trained(dde, task, recipe).curve


def _trained(dde: ModuleType, task: Task, recipe: Recipe) -> Journal:
    with torch.device("cpu"):  # where points are drawn, whatever the default
        told = given(task)
    net = _network(dde, task, told)
    data = _data(dde, task, told)
    journal = Journal(task, told.known, net, recipe.dtype)
    weights = [WEIGHTS.equation, *[WEIGHTS.data] * len(told.told)]

    class Model(dde.Model):
        def _test(self, *args: Any, **options: Any) -> None:
            with journal.watch.paused():
                super()._test(*args, **options)

    class Looking(dde.callbacks.Callback):
        def __init__(self, stage: int) -> None:
            super().__init__()
            self.stage, self.begun = stage, 0

        def on_train_begin(self) -> None:
            self.begun = self.model.train_state.iteration

        def on_epoch_end(self) -> None:
            done = self.model.train_state.iteration - self.begun
            if self.stage == 0 and done % task.every and done != recipe.warmup:
                return
            self.model.stop_training |= journal.look(self.stage, done)

    model = Model(data, net)
    model.compile("adam", lr=recipe.lr, loss_weights=weights, verbose=0)
    journal.look(0, 0)
    model.train(iterations=recipe.warmup, display_every=_MANY, callbacks=[Looking(0)], verbose=0)
    if not model.stop_training:
        dde.optimizers.set_LBFGS_options(maxiter=_MANY)
        options = importlib.import_module("deepxde.optimizers.config").LBFGS_options
        options["iter_per_step"], options["fun_per_step"] = task.every, task.every * 5 // 4
        model.compile("L-BFGS", loss_weights=weights, verbose=0)
        model.train(display_every=_MANY, callbacks=[Looking(1)], verbose=0)
    return journal


def _network(dde: ModuleType, task: Task, told: Given) -> Any:
    """A network with our first weights, behind the same map of the box."""
    net = dde.nn.FNN([2, *[task.width] * task.hidden, 1], "tanh", "Glorot normal")
    with torch.no_grad():
        for linear, (weight, bias) in zip(net.linears, told.layers, strict=True):
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
    like = net.linears[0].weight
    centre, half = told.centre.to(like), told.half.to(like)
    net.apply_feature_transform(lambda x: (x - centre) / half)
    return net


def _data(dde: ModuleType, task: Task, told: Given) -> Any:
    """Our points: of the equation as anchors, of the conditions as sets of points with values."""
    box = dde.geometry.Rectangle([0, 0], [1, 1])  # all points are given: it is not looked at
    conditions = [
        dde.icbc.PointSetBC(one.points.numpy(), one.values.to(task.device, torch.get_default_dtype()))
        for one in told.told
    ]
    equation = EQUATIONS[task.family](dde, told.parameter)
    return dde.data.PDE(box, equation, conditions, num_domain=0, num_boundary=0, anchors=told.inside.numpy())


def _poisson(dde: ModuleType, sharpness: float) -> Callable[[Tensor, Tensor], Tensor]:
    top = 4 * torch.erf(torch.tensor(sharpness / 4, dtype=torch.float64)).item() ** 2

    def bump(x: Tensor) -> Tensor:
        return torch.erf(sharpness * (x - 0.25)) - torch.erf(sharpness * (x - 0.75))

    def residual(x: Tensor, u: Tensor) -> Tensor:
        bent = dde.grad.hessian(u, x, i=0, j=0) + dde.grad.hessian(u, x, i=1, j=1)
        return bent - bump(x[:, :1]) * bump(x[:, 1:]) / top

    return residual


def _burgers(dde: ModuleType, viscosity: float) -> Callable[[Tensor, Tensor], Tensor]:
    def residual(x: Tensor, u: Tensor) -> Tensor:
        along, later = dde.grad.jacobian(u, x, i=0, j=0), dde.grad.jacobian(u, x, i=0, j=1)
        return later + u * along - viscosity * dde.grad.hessian(u, x, i=0, j=0)

    return residual


EQUATIONS: Mapping[str, Callable[[ModuleType, float], Callable[[Tensor, Tensor], Tensor]]] = {
    "poisson": _poisson,
    "burgers": _burgers,
}
"""(deepxde, parameter) -> (x [N, 2], u [N, 1]) -> residual [N, 1], by family."""
