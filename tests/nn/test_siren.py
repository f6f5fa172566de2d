"""Sine networks: their sizes, the law of their first weights, exact periodicity, exact boundary values."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

from sciode.nn import HardBoundary, PeriodicEmbedding, Siren, members_of, stack
from sciode.solvers.jets import Jet


def made(seeded, inputs: int, outputs: int, width: int, hidden: int, seed: int = 0, **options) -> Siren:
    """A network with fixed weights, drawn in float32."""
    with seeded(seed):
        return Siren(inputs, outputs, width, hidden, **options).double()


def layers(net: Siren) -> list[nn.Linear]:
    """The sine layers and the last."""
    return [layer for layer in (*net.sines, net.last) if isinstance(layer, nn.Linear)]


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape))


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((1, 1, 20, 2), 901),
        ((2, 2, 32, 3), 3330),
        ((2, 1, 32, 3), 3297),
        ((2, 2, 68, 3), 14418),
        ((3, 3, 66, 3), 13731),
        ((3, 3, 128, 3), 50435),
    ],
)
def test_the_sizes_of_the_papers_cases(seeded, sizes: tuple[int, int, int, int], count: int) -> None:
    assert sum(p.numel() for p in made(seeded, *sizes).parameters()) == count


def test_a_siren_is_its_formula(seeded) -> None:
    net, x = made(seeded, 2, 3, 5, 1, omega=7.0), points(4, 2)
    first, second, last = layers(net)
    state = torch.sin(7 * (x @ first.weight.T + first.bias))
    state = torch.sin(7 * (state @ second.weight.T + second.bias))
    torch.testing.assert_close(net(x), state @ last.weight.T + last.bias)
    torch.testing.assert_close(net(x.reshape(2, 2, 2)), net(x).reshape(2, 2, 3))


@pytest.mark.parametrize("omega", [30.0, 5.0])
def test_weights_and_biases_have_their_uniform_laws(seeded, omega: float) -> None:
    net = made(seeded, 4, 64, 128, 1, omega=omega)
    for k, layer in enumerate(layers(net)):
        size = layer.weight.shape[1]
        bound = math.sqrt(6 / size) / omega if k else 1 / size
        for drawn, half in ((layer.weight, bound), (layer.bias, 1 / math.sqrt(size))):
            assert drawn.abs().max() <= half
            assert stats.kstest(drawn.detach().flatten().numpy(), stats.uniform(-half, 2 * half).cdf).pvalue > 1e-3


def test_every_sine_layer_starts_with_the_arcsine_laws_power(seeded) -> None:
    """What the initialisation is for: in a wide network the sines neither die out nor grow, at any depth."""
    net, state = made(seeded, 1, 1, 512, 4), points(256, 1)
    for layer in layers(net)[:-1]:
        state = torch.sin(net.omega * layer(state)).detach()
        assert float(state.square().mean()) == pytest.approx(0.5, abs=0.03)


def derivatives(net: nn.Module, x: Tensor, order: int) -> Tensor:
    """The Taylor coefficients of u along the first axis, [order + 1, N, c]."""
    zero = torch.zeros_like(x)
    along = zero.clone()
    along[:, 0] = 1
    jet = net(Jet([x, along, *[zero] * (order - 1)]))
    return torch.stack(jet.coefficients).detach()


@pytest.mark.parametrize("length", [2.0, math.pi])
def test_a_periodic_field_closes_with_its_derivatives(seeded, length: float) -> None:
    """Also one that was made in float32: the period is no float32 number."""
    net = made(seeded, 2, 2, 24, 2, omega=5.0, embedding=PeriodicEmbedding([length, None]))
    x = points(16, 2)
    shifted = x + x.new_tensor([length, 0.0])
    ours, theirs = derivatives(net, x, 4), derivatives(net, shifted, 4)
    for k in range(5):
        # Rounding of x + L, amplified by the next derivative.
        torch.testing.assert_close(ours[k], theirs[k], rtol=0, atol=1e-12 * float(ours.abs().max()))
    elsewhere = derivatives(net, x + x.new_tensor([length / 2, 0.0]), 4)
    assert (ours - elsewhere).abs().max() > 1e-2
    beyond = x + x.new_tensor([0.0, length])
    assert (net(x) - net(beyond)).abs().max() > 1e-2


def test_the_embedding_is_two_features_a_periodic_axis() -> None:
    embedding, x = PeriodicEmbedding([2.0, None, 0.5]), points(7, 3)
    angles = 2 * math.pi * x / torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    wanted = torch.stack((angles[:, 0].cos(), angles[:, 0].sin(), x[:, 1], angles[:, 2].cos(), angles[:, 2].sin()), -1)
    assert embedding.width == 5
    torch.testing.assert_close(embedding(x), wanted)


def test_a_hard_boundary_holds_exactly(seeded) -> None:
    """On the sides of the square u is the value, to the last bit; inside it is the network's to choose."""

    def value(x: Tensor) -> Tensor:
        return torch.cat((x[..., :1] * x[..., 1:], x[..., :1].cos()), -1)

    def distance(x: Tensor) -> Tensor:
        return (1 - x.square()).prod(-1, keepdim=True)

    net = made(seeded, 2, 2, 16, 1)
    field, x = HardBoundary(net, value, distance), points(20, 2)
    sides = torch.cat([torch.stack((torch.full_like(x[:, 0], s), x[:, 1]), -1) for s in (-1, 1)])
    for edge in (sides, sides.flip(-1)):
        assert torch.equal(field(edge), value(edge))
        assert torch.equal(vmap(field)(edge), value(edge))
    torch.testing.assert_close(field(x), value(x) + distance(x) * net(x))
    assert dict(field.named_parameters()).keys() == {f"network.{name}" for name, _ in net.named_parameters()}


def test_derivatives_agree_with_differences_and_among_modes(seeded) -> None:
    net = made(seeded, 2, 2, 8, 2, omega=3.0, embedding=PeriodicEmbedding([None, 2.0]))
    x = points(5, 2).requires_grad_()
    with seeded(0):
        assert torch.autograd.gradcheck(net, (x,))
        assert torch.autograd.gradgradcheck(net, (x,))
    one = points(2)
    torch.testing.assert_close(jacfwd(net)(one), jacrev(net)(one))


def test_gradients_of_single_points_add_up(seeded) -> None:
    """vmap of grad over points, through functional_call, is what a residual's Jacobian is made of."""
    net, x = made(seeded, 1, 1, 6, 1), points(9, 1)
    weights: dict[str, Tensor] = dict(net.named_parameters())

    def value(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, weights, (x,)).square().sum()

    each = vmap(grad(value), (None, 0))(weights, x)
    together = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    for name, whole in zip(weights, together, strict=True):
        torch.testing.assert_close(each[name].sum(0), whole)


def test_networks_are_copied_stored_and_stacked(seeded) -> None:
    first, second = (made(seeded, 2, 1, 8, 1, seed=s, embedding=PeriodicEmbedding([1.0, None])) for s in (0, 1))
    x = points(3, 2)
    assert torch.equal(copy.deepcopy(first)(x), first(x))
    stored = io.BytesIO()
    torch.save(first, stored)
    stored.seek(0)
    kinds = [Siren, PeriodicEmbedding, nn.ModuleList, nn.Linear]
    with torch.serialization.safe_globals(kinds):
        assert torch.equal(torch.load(stored, weights_only=True)(x), first(x))
    both = stack([first, second])
    assert members_of(both) == 2
    torch.testing.assert_close(both(torch.cat((x, x))), torch.cat((first(x), second(x))))


@pytest.mark.parametrize("sizes", [(0, 1, 8, 1), (1, 1, 0, 1), (1, 1, 8, -1)])
def test_sizes_must_be_positive(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1 and hidden >= 0"):
        Siren(*sizes)


def test_misuse_is_refused(seeded) -> None:
    with pytest.raises(ValueError, match="omega must be a positive"):
        Siren(1, 1, 8, 1, omega=0.0)
    with pytest.raises(ValueError, match="embedding takes 2 axes"):
        Siren(1, 1, 8, 1, embedding=PeriodicEmbedding([1.0, 1.0]))
    with pytest.raises(ValueError, match="one coordinate an axis"):
        made(seeded, 2, 1, 8, 1)(points(3))
    for periods in ([], [0.0], [math.inf]):
        with pytest.raises(ValueError, match="periods must hold"):
            PeriodicEmbedding(periods)
