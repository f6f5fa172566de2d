"""Both systems: symmetries of the dynamics, limits of the observer, and who may see the future."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.data.flow import Space
from sciode.observers import (
    Continuum,
    Design,
    Interaction,
    LatentDynamics,
    Scene,
    SensorAttention,
    edges_between,
    network,
    scene,
    spacing,
)  # fmt: skip
from sciode.observers.attention import _linear
from sciode.observers.model import PLAIN

BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))
SPHERE = Space("sphere")
CLOCK = torch.arange(5, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(space: Space, count: int = 30, seed: int = 0) -> Tensor:
    if space.kind == "sphere":
        found = drawn(count, 3, seed=seed)
        return found / found.norm(dim=1, keepdim=True)
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(points: Tensor, readings: Tensor, space: Space, clock: Tensor = CLOCK) -> Scene:
    return scene([points], [readings], clock, [edges_between(points, space)], space, [spacing(points, space)])


def latents(seeded: Callable[[int], Any], space: Space, **how: Any) -> LatentDynamics:
    with seeded(0):
        dynamics = LatentDynamics(2, space.dimension, 16, 2, embedding=4 if space.kind == "periodic" else 3, **how)
    return dynamics.double()


@pytest.mark.parametrize("form", ["steps", "ode"])
def test_sensors_may_come_in_any_order(seeded: Any, form: str) -> None:
    dynamics = latents(seeded, BOX, form=form)
    points, readings = places(BOX), drawn(30, 2)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    one, other = (dynamics(made(points[o], readings[o], BOX)).states for o in (torch.arange(30), order))
    assert torch.allclose(one[:, :, order], other, rtol=1e-9, atol=1e-9)
    assert (one[:, -1] - one[:, 0]).abs().max() > 1e-3


def test_relative_dynamics_commute_with_translations_of_a_periodic_box(seeded: Any) -> None:
    points, readings = places(BOX), drawn(30, 2)
    moved = (points + torch.tensor([0.3, 0.8])) % 1.0
    relative, absolute = (latents(seeded, BOX, places=kind) for kind in ("relative", "absolute"))
    one, other = (relative(made(x, readings, BOX)).states for x in (points, moved))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    one, other = (absolute(made(x, readings, BOX)).states for x in (points, moved))
    assert (one - other).abs().max() > 1e-3


def test_relative_dynamics_commute_with_rotations_of_a_sphere(seeded: Any) -> None:
    points, readings = places(SPHERE), drawn(30, 2)
    turned = points @ torch.linalg.qr(drawn(3, 3, seed=4))[0].T
    relative, absolute = (latents(seeded, SPHERE, places=kind) for kind in ("relative", "absolute"))
    one, other = (relative(made(x, readings, SPHERE)).states for x in (points, turned))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    one, other = (absolute(made(x, readings, SPHERE)).states for x in (points, turned))
    assert (one - other).abs().max() > 1e-3


def test_an_interaction_is_what_its_formula_says(seeded: Any) -> None:
    with seeded(0):
        layer = Interaction(8).double()
    v, e = drawn(10, 8), drawn(40, 8, seed=1)
    edges = torch.randint(0, 10, (2, 40), generator=torch.Generator().manual_seed(2))
    weight = torch.cat((layer.sender.weight, layer.receiver.weight, layer.edge.weight), 1)
    joined = torch.cat((v[edges[0]], v[edges[1]], e), 1)
    change = (joined @ weight.T + layer.edge.bias).relu() @ layer.edge_out.weight.T + layer.edge_out.bias
    total = torch.zeros(10, 8, dtype=torch.float64).index_add(0, edges[1], change)
    found = layer(v, e, edges)
    assert torch.allclose(found[1], change) and torch.allclose(found[0], layer.node(torch.cat((v, total), 1)))


def test_steps_are_eulers_method_and_tend_to_the_graph_ode(seeded: Any) -> None:
    points, readings = places(BOX), drawn(30, 2)
    steps = latents(seeded, BOX)
    euler = latents(seeded, BOX, form="ode", solver={"method": "euler", "dt": 1.0, "engine": "eager"})
    exact = latents(seeded, BOX, form="ode", solver={"method": "dopri5", "rtol": 1e-9, "atol": 1e-9})
    at_clock = made(points, readings, BOX)
    assert torch.allclose(steps(at_clock).states, euler(at_clock).states, rtol=1e-10, atol=1e-10)
    end = exact(at_clock).states[:, -1]
    finer = [made(points, readings, BOX, torch.linspace(0, 4, 4 * n + 1, dtype=torch.float64)) for n in (4, 8, 16)]
    errors = [float((steps(at).states[:, -1] - end).detach().norm()) for at in finer]
    # First order: halves with the step.
    assert all(1.8 < coarse / fine < 2.2 for coarse, fine in pairwise(errors))


def test_flows_in_a_batch_have_clocks_of_their_own_and_do_not_meet(seeded: Any) -> None:
    clocks = torch.stack((torch.tensor([0.0, 0.4, 1.7, 2.0]), torch.tensor([0.0, 1.0, 2.0, 5.0]))).double()
    points, readings = [places(BOX, 30), places(BOX, 20, 1)], [drawn(30, 2), drawn(20, 2, seed=1)]
    edges = [edges_between(x, BOX) for x in points]
    near = [spacing(x, BOX) for x in points]
    both = scene(points, readings, clocks, edges, BOX, near)
    # Padding would take part in the norm of an adaptive solver's error: its steps would differ.
    even = {"method": "rk4", "dt": 0.1, "engine": "eager"}
    for form in ("steps", "ode"):
        dynamics = latents(seeded, BOX, form=form, solver=even)
        together = dynamics(both).states
        for b, count in enumerate((30, 20)):
            alone = dynamics(made(points[b], readings[b], BOX, clocks[b : b + 1])).states
            assert torch.allclose(together[b, :, :count], alone[0], rtol=1e-10, atol=1e-10)


def test_regularizers_of_the_solver_reach_the_weights(seeded: Any) -> None:
    dynamics = latents(seeded, BOX, form="ode", regularize=("error",))
    found = dynamics(made(places(BOX), drawn(30, 2), BOX))
    assert found.penalties["error"].shape == (1,)
    found.penalties["error"].sum().backward()
    assert all(layer.sender.weight.grad.abs().sum() > 0 for layer in dynamics.layers)  # type: ignore[union-attr]


def attention(seeded: Any, way: Any, k: int = 16) -> SensorAttention:
    with seeded(0):
        return SensorAttention(16, 4, way=way, k=k).double()


def asked(space: Space, attend: SensorAttention, there: Tensor | None = None, points: Tensor | None = None) -> Tensor:
    points = places(space).unsqueeze(0) if points is None else points
    there = torch.ones(points.shape[:2], dtype=torch.bool) if there is None else there
    x = places(space, 12, 7).unsqueeze(0)
    known = drawn(1, 3, points.shape[1], 16, seed=3)
    return attend(drawn(1, 12, 16, seed=2), known, x, points, there, torch.tensor([0.2]).double(), space)


@pytest.mark.parametrize("space", [BOX, SPHERE], ids=["periodic", "sphere"])
def test_attention_to_all_nearest_is_dense_attention(seeded: Any, space: Space) -> None:
    dense = asked(space, attention(seeded, "dense"))
    assert dense.shape == (1, 3, 12, 16)
    nearest = attention(seeded, "nearest", 29)
    # Of 30 sensors the 30th is so far that its weight is lost in rounding once heads are near-sighted.
    with torch.no_grad():
        for attend in (full := attention(seeded, "dense")), nearest:
            attend.sharpness.fill_(40.0)
    assert torch.allclose(asked(space, full), asked(space, nearest), rtol=1e-9, atol=1e-9)
    assert torch.allclose(dense, asked(space, attention(seeded, "nearest", 30)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", ["dense", "nearest", "linear"])
def test_sensors_that_are_not_there_are_not_read(seeded: Any, way: str) -> None:
    attend = attention(seeded, way, 8)
    there = torch.ones(1, 30, dtype=torch.bool)
    there[:, 20:] = False
    points = places(BOX).unsqueeze(0)
    moved = points.clone()
    moved[:, 20:] = 0.5
    assert torch.allclose(asked(BOX, attend, there, points), asked(BOX, attend, there, moved))
    assert not torch.allclose(asked(BOX, attend, there, points), asked(BOX, attend, None, moved))


def test_infinitely_near_sighted_heads_read_the_nearest_sensor(seeded: Any) -> None:
    """The limit b -> infinity: nearest-neighbour interpolation, exact at sensors."""
    attend = attention(seeded, "dense")
    points, known = places(BOX).unsqueeze(0), drawn(1, 1, 30, 16, seed=3)
    with torch.no_grad():
        attend.sharpness.fill_(1e6)
    x = torch.cat((points[:, :5], points[:, :5] + 1.0 + 1e-4), 1)  # the same sensors, once over the seam
    found = attend(drawn(1, 10, 16), known, x, points, torch.ones(1, 30, dtype=torch.bool), torch.ones(1).double(), BOX)
    expected = attend.out(attend.value(known[:, :, [0, 1, 2, 3, 4] * 2]))
    assert torch.allclose(found, expected, atol=1e-9)


def test_linear_attention_is_the_sum_that_it_factors(seeded: Any) -> None:
    attend = attention(seeded, "linear")
    q, known = drawn(1, 12, 16, seed=2), drawn(1, 3, 30, 16, seed=3)
    feature = lambda x: torch.nn.functional.elu(x.unflatten(-1, (4, 4))) + 1  # noqa: E731
    weight = torch.einsum("bqhd,bknhd->bkqhn", feature(attend.query(q)), feature(attend.key(known)))
    weight = weight / weight.sum(-1, keepdim=True)
    mean = torch.einsum("bkqhn,bknhd->bkqhd", weight, attend.value(known).unflatten(-1, (4, 4)))
    assert torch.allclose(asked(BOX, attend), attend.out(mean.flatten(-2)))


def test_linear_attention_whose_features_all_vanish_is_the_same_mean(seeded: Any) -> None:
    """Where queries and keys are far below 0, phi is an exponential, and a shift of all falls out of the quotient."""
    attend = attention(seeded, "linear")
    found = []
    for shift in (-8.0, -300.0):  # exp(-300) squared is no double
        with torch.no_grad():
            attend.query.bias.fill_(shift)
            attend.key.bias.fill_(shift)
        found.append(asked(BOX, attend))
    assert torch.allclose(*found, rtol=1e-9, atol=1e-12)
    found[1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attend.parameters())


@pytest.mark.parametrize("gap", [-30.0, -80.0, -87.0, -90.0, -100.0, -120.0])
def test_linear_attention_that_shares_hardly_a_feature_has_a_gradient(gap: float) -> None:
    q = torch.tensor([0.0, -200.0])[None, None, None].requires_grad_()
    k = torch.tensor([gap, 0.0])[None, None, None, None].requires_grad_()
    found = _linear(q, k, torch.full((1, 1, 1, 1, 2), 5.0), torch.ones(1, 1, dtype=torch.bool))
    found.sum().backward()
    assert all(x is not None and x.isfinite().all() for x in (found, q.grad, k.grad))
    assert bool((found == 5.0).all()) == (gap == -30.0)


@pytest.mark.parametrize("reader", ["gru", "mean", "max"])
def test_a_causal_query_does_not_read_the_future(seeded: Any, reader: Any) -> None:
    points, readings = places(BOX), drawn(30, 2)
    t = torch.tensor([[0.0, 0.99, 2.0, 2.5, 4.0]]).double()
    at = made(points, readings, BOX)
    states = drawn(1, 5, 30, 16, seed=5)
    altered = states.clone()
    altered[:, 3:] += drawn(1, 2, 30, 16, seed=6)
    for causal in (True, False):
        with seeded(0):
            continuum = Continuum(2, 4, 16, reader=reader, causal=causal, horizon=4.0).double()
        x = places(BOX, 5, 8).unsqueeze(0)
        change = (continuum(states, at, x, t) - continuum(altered, at, x, t)).abs().amax(-1)[0]
        assert (change[:4] == 0).all() == causal
        assert change[4] > 0


def test_a_query_is_answered_alone_and_over_the_seam(seeded: Any) -> None:
    at = made(places(BOX), drawn(30, 2), BOX)
    with seeded(0):
        model = network(2, BOX, Design(width=16, layers=2, horizon=4.0, **PLAIN)).double()
    x, t = places(BOX, 6, 8).unsqueeze(0), torch.linspace(0, 4, 6, dtype=torch.float64).unsqueeze(0)
    found = model(at, x, t).values
    assert torch.allclose(model(at, x[:, 2:3], t[:, 2:3]).values, found[:, 2:3])
    assert torch.allclose(model(at, x + torch.tensor([1.0, -2.0]), t).values, found)


@pytest.mark.parametrize("form", ["steps", "ode"])
def test_a_forecast_begins_at_what_was_read_and_moves_by_increments(seeded: Any, form: str) -> None:
    points, readings = places(BOX), drawn(30, 2)
    readings[3, 1] = torch.nan
    dynamics = latents(seeded, BOX, form=form)
    found = dynamics(made(points, readings, BOX)).told[0]
    read = readings.isfinite()
    assert torch.equal(found[0][read], readings[read]) and found.isfinite().all()
    assert (found[-1] - found[0]).abs().amin() > 0
    with torch.no_grad():
        for parameter in dynamics.head[-1].parameters():
            parameter.zero_()
    still = dynamics(made(points, readings, BOX)).told[0]
    assert torch.equal(still, still[:1].expand_as(still))


@pytest.mark.parametrize(
    "choice",
    [{}, {"attention": "nearest"}, {"attention": "linear"}, {"dynamics": "ode"}, {"state": "latent"}],
    ids=lambda choice: "-".join(choice.values()) or "default",
)
def test_every_weight_learns(seeded: Any, choice: dict[str, Any]) -> None:
    readings = drawn(30, 2).float()
    readings[3, 1] = torch.nan
    at = made(places(BOX).float(), readings, BOX)
    with seeded(0):
        model = network(2, BOX, Design(width=16, layers=2, horizon=4.0, **{**PLAIN, **choice}))
    x, t = places(BOX, 6, 8).float().unsqueeze(0), torch.full((1, 6), 2.0, dtype=torch.float64)
    found = model(at, x, t)
    (found.values.square().sum() + found.told.square().sum()).backward()
    lazy = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert lazy == []


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="form: unknown"):
        LatentDynamics(1, 2, form="step")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="state: unknown"):
        LatentDynamics(1, 2, state="value")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="regularize: steps have no solver"):
        LatentDynamics(1, 2, regularize=("error",))
    with pytest.raises(ValueError, match="solver: unknown 'metod'"):
        LatentDynamics(1, 2, form="ode", solver={"metod": "rk4"})
    with pytest.raises(ValueError, match="divide the width"):
        SensorAttention(16, 3)
    with pytest.raises(ValueError, match="reader: unknown"):
        Continuum(1, 2, 16, reader="lstm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without sensors"):
        scene([torch.zeros(0, 2)], [torch.zeros(0, 1)], CLOCK, [torch.zeros(2, 0).long()], BOX, [1.0])
