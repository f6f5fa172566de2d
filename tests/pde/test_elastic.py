"""Elastic solids: symmetries and limits of the energies, contact, and what minimises the incremental potential."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciode.pde import elastic
from sciode.pde.elastic import PRESETS, Form, Load, Material, NeoHookean, Plane, Solid, Sphere

SOLIDS: list[Solid] = [Material(2.0, 3.0), NeoHookean(2.0, 3.0)]


def _draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _turn(d: int, seed: int) -> Tensor:
    q = torch.linalg.qr(_draw((d, d), seed)).Q
    return q * torch.cat((torch.linalg.det(q).reshape(1), torch.ones(d - 1, dtype=torch.float64)))


@pytest.mark.parametrize("material", SOLIDS, ids=["arap", "neo-hookean"])
@pytest.mark.parametrize("d", [2, 3])
def test_energies_know_neither_the_observer_nor_a_direction(material: Solid, d: int) -> None:
    gradient = torch.eye(d, dtype=torch.float64) + 0.4 * _draw((50, d, d), d)
    energy = elastic.potential(gradient, material)
    torch.testing.assert_close(elastic.potential(_turn(d, 1) @ gradient, material), energy)
    torch.testing.assert_close(elastic.potential(gradient @ _turn(d, 2), material), energy)


@pytest.mark.parametrize("material", SOLIDS, ids=["arap", "neo-hookean"])
@pytest.mark.parametrize("d", [2, 3])
def test_small_strains_obey_hooke(material: Solid, d: int) -> None:
    """W(1 + t e) = t^2 (mu |sym e|^2 + lambda/2 (tr e)^2) + O(t^3), with no energy and no stress at rest."""
    mu, lame = (2.0, 6.0) if isinstance(material, Material) else (2.0, 3.0)
    at_rest, strain = torch.eye(d, dtype=torch.float64), _draw((d, d), 5)
    zero = torch.zeros((), dtype=torch.float64)

    def energy(gradient: Tensor) -> Tensor:
        return elastic.potential(gradient, material)

    torch.testing.assert_close(energy(at_rest), zero)
    torch.testing.assert_close(torch.func.grad(energy)(at_rest), zero.expand(d, d), rtol=0, atol=1e-14)
    second = torch.func.hessian(energy)(at_rest)
    hooke = mu * ((strain + strain.T) / 2).square().sum() + lame / 2 * strain.trace() ** 2
    torch.testing.assert_close(torch.einsum("ij,ijkl,kl", strain, second, strain) / 2, hooke)


@pytest.mark.parametrize("d", [2, 3])
def test_misfits_square_to_the_energy(d: int) -> None:
    gradient, material = _draw((100, d, d), 6), Material(0.7, 11.0)
    squares = elastic.misfits(gradient, material).square().sum(-1)
    torch.testing.assert_close(squares, elastic.potential(gradient, material), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("material", SOLIDS, ids=["arap", "neo-hookean"])
@pytest.mark.parametrize("d", [2, 3])
def test_a_network_field_gives_per_sample_gradients_and_second_derivatives(material: Solid, d: int, seeded) -> None:
    """The energy at each point, differentiated in the parameters by vmap, against one point at a time."""
    with seeded(0):
        net = nn.Sequential(nn.Linear(d, 6), nn.Tanh(), nn.Linear(6, d)).double()
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    points = _draw((5, d), 7)

    def energy(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        def field(x: Tensor) -> Tensor:
            return x + torch.func.functional_call(net, parameters, (x,))

        return elastic.potential(torch.func.jacfwd(field)(x), material)

    batch = torch.func.vmap(torch.func.grad(energy), (None, 0))(parameters, points)
    for k, x in enumerate(points):
        alone = torch.func.grad(energy)(parameters, x)
        for name, value in alone.items():
            torch.testing.assert_close(batch[name][k], value)

    first = "0.weight"
    step = 1e-5

    def slope(weight: Tensor) -> Tensor:
        return torch.func.grad(energy)({**parameters, first: weight}, points[0])[first]

    direction = _draw((6, d), 8)
    curved = torch.func.jvp(slope, (parameters[first],), (direction,))[1]
    nearby = [slope(parameters[first] + sign * step * direction) for sign in (1, -1)]
    torch.testing.assert_close(curved, (nearby[0] - nearby[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_a_sphere_pushes_by_the_depth_and_a_plane_too() -> None:
    ball, floor = Sphere((0.0, -2.0), 1.0), Plane((0.0, 2.0), -4.0)
    points = torch.tensor([[0.0, -1.25], [0.6, -2.8], [0.0, -0.9], [0.0, -2.0]], dtype=torch.float64)
    depth, out = elastic.penetration(points, ball)
    torch.testing.assert_close(depth, torch.tensor([0.25, 0.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(out[0], torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert bool((out[3] == 0).all())
    depth, out = elastic.penetration(torch.tensor([[3.0, -2.5], [3.0, -1.0]], dtype=torch.float64), floor)
    torch.testing.assert_close(depth, torch.tensor([0.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(out[0], torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "obstacle", [Sphere((0.1, 0.0, -0.2), 1.0), Plane((1.0, 2.0, -1.0), 0.3)], ids=["ball", "plane"]
)
def test_contact_acts_on_what_is_inside_alone_and_straight_outwards(obstacle: Sphere | Plane) -> None:
    points = _draw((200, 3), 9)
    depth, out = elastic.penetration(points, obstacle)
    force = -torch.func.vmap(torch.func.grad(lambda x: elastic.contact(x, (obstacle,), 50.0)))(points)
    assert bool((depth > 0).any() and (depth == 0).any())
    torch.testing.assert_close(force, 50.0 * depth.unsqueeze(-1) * out)
    # As deep as it was, moved out by its depth, a point lies on the surface.
    again, _ = elastic.penetration(points + depth.unsqueeze(-1) * out, obstacle)
    assert float(again.max()) < 1e-14


def test_a_free_point_moves_as_implicit_euler_says() -> None:
    """At F = 1 the minimum of the textbook form is phi = 2 phi_n - phi_(n-1) + dt^2 f / rho."""
    before, earlier, force = _draw((3,), 1), _draw((3,), 2), _draw((3,), 3)
    dt, rest, solid = 0.1, torch.eye(3, dtype=torch.float64), Material(1.0, 1.0, density=4.0)
    forms: tuple[Form, ...] = ("textbook", "official")
    for form in forms:

        def energy(place: Tensor, form: Form = form) -> Tensor:
            return elastic.incremental_potential(
                place,
                rest,
                solid,
                dt=dt,
                before=before,
                earlier=earlier,
                force=force,
                form=form,
            )

        expected = 2 * before - earlier + dt**2 * force / 4.0
        slope = torch.func.grad(energy)(expected)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["collide", "bunny", "lucy"])
def test_presets_in_the_official_form_are_the_authors_loss_but_for_the_depth(name: str) -> None:
    """Their formula, written out with their weights."""
    w_v, w_a, w_k, w_c = {
        "collide": (1e3, 20.0, 10.0, 1e4),
        "bunny": (1e3, 100.0, 1.0, 1e6),
        "lucy": (1e3, 1e3, 1.0, 1e6),
    }[name]
    setup = PRESETS[name]
    d, dt = setup.dimension, 0.1
    shift = torch.zeros(d, dtype=torch.float64)
    shift[-1] = -1.6
    place, before, earlier = (0.6 * _draw((300, d), seed) + shift for seed in (1, 2, 3))
    gradient = torch.eye(d, dtype=torch.float64) + 0.2 * _draw((300, d, d), 4)
    force = torch.tensor(elastic.force_at(0, setup.loads, d), dtype=torch.float64)
    values = torch.linalg.svdvals(gradient)
    velocity, earlier_velocity = (place - before) / dt, (before - earlier) / dt
    expected = w_a * (values - 1).square().sum(-1) + w_v * (values.prod(-1) - 1) ** 2
    expected = expected + w_k * (velocity - earlier_velocity).square().sum(-1) - dt * velocity @ force
    if name == "collide":
        arm = place - torch.tensor([0.0, -2.0], dtype=torch.float64)
        distance = arm.norm(dim=-1)
        depth, out = (1 - distance).clamp(min=0), arm / distance.unsqueeze(-1)
    else:
        depth, out = (-2 - place[:, -1]).clamp(min=0), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    expected = expected - dt * w_c * depth * (velocity * out).sum(-1)
    assert bool((depth > 0).any())
    upright = torch.linalg.det(gradient) > 0
    found = elastic.incremental_potential(
        place,
        gradient,
        setup.material,
        dt=setup.dt,
        before=before,
        earlier=earlier,
        force=force,
        obstacles=setup.obstacles,
        stiffness=setup.stiffness,
        form="official",
    )
    torch.testing.assert_close(found[upright], expected[upright], rtol=1e-10, atol=1e-8)


def test_without_contact_both_forms_differ_by_what_moves_no_minimum() -> None:
    before, earlier, force = _draw((20, 2), 1), _draw((20, 2), 2), _draw((2,), 3)
    rest = torch.eye(2, dtype=torch.float64).expand(20, 2, 2)

    def difference(place: Tensor) -> Tensor:
        textbook, official = (
            elastic.incremental_potential(
                place, rest, Material(1.0, 2.0, 3.0), dt=0.2, before=before, earlier=earlier, force=force, form=form
            )
            for form in ("textbook", "official")
        )
        return official - textbook

    torch.testing.assert_close(difference(_draw((20, 2), 4)), before @ force)
    torch.testing.assert_close(difference(_draw((20, 2), 5)), before @ force)


def test_loads_act_as_long_as_they_say() -> None:
    loads = (Load((0.0, -200.0), 2), Load((1.0, 0.0)))
    forces = [elastic.force_at(step, loads, 2) for step in range(4)]
    assert forces == [(1.0, -200.0), (1.0, -200.0), (1.0, 0.0), (1.0, 0.0)]
    assert elastic.force_at(7, (), 3) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="components"):
        elastic.force_at(0, loads, 3)


def test_misuse_is_told_before_work_starts() -> None:
    place, rest = torch.zeros(2), torch.eye(2)
    for wrong in (lambda: Material(-1.0, 1.0), lambda: NeoHookean(1.0, -1.0), lambda: Material(1.0, 1.0, density=0.0)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
    with pytest.raises(ValueError, match="normal"):
        Plane((0.0, 0.0), 1.0)
    with pytest.raises(ValueError, match="radius"):
        Sphere((0.0, 0.0), 0.0)
    with pytest.raises(ValueError, match="earlier="):
        elastic.incremental_potential(place, rest, SOLIDS[0], dt=0.1, before=place)
    with pytest.raises(ValueError, match="before="):
        elastic.incremental_potential(place, rest, SOLIDS[0], force=place, form="official")
    with pytest.raises(ValueError, match="form"):
        elastic.incremental_potential(place, rest, SOLIDS[0], form="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="material"):
        elastic.potential(rest, 1.0)  # type: ignore[arg-type]
