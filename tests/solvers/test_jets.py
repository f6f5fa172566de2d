"""Jets: known Taylor series, nested jvp for every rule, gradients, cost, refusals, Dynamo and vmap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sciode.solvers.jets import Jet, rules, taylor

ORDER = 5
T = torch.tensor(0.3, dtype=torch.float64)
Fn = Callable[..., Any]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _path(*shape: int, seed: int = 0, centre: float = 0.0, spread: float = 0.3) -> list[Tensor]:
    """Coefficients of a curve that stays close to its centre."""
    first, *rest = [spread * _draw(*shape, seed=seed + k) for k in range(ORDER + 1)]
    return [first.clamp(-2 * spread, 2 * spread) + centre, *rest]


def _along(coefficients: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def curve(s: Tensor) -> Tensor:
        total = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            total = total * s + c
        return total

    return curve


def _derivatives(curve: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """(1/k!) d^k/ds^k at s = 0 by nested jvp, k = 0..ORDER."""
    zero = torch.zeros((), dtype=torch.float64)
    found = []
    for k in range(ORDER + 1):
        found.append(curve(zero) / math.factorial(k))
        curve = _jvp(curve)
    return found


def _jvp(curve: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda s: torch.func.jvp(curve, (s,), (torch.ones_like(s),))[1]


def _assert_follows(fn: Fn, *paths: list[Tensor], plain: Fn | None = None) -> None:
    """`fn` of jets is the jet of `fn`, or of another way to write it."""
    jet = fn(*(Jet(path) for path in paths))
    curves = [_along(path) for path in paths]
    wanted = _derivatives(lambda s: (plain or fn)(*(curve(s) for curve in curves)))
    assert jet.order == ORDER
    for found, expected in zip(jet.coefficients, wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


# Where a function is not at home around zero.
CENTRES = {"acosh": 2.5, "log": 2.0, "log2": 2.0, "log10": 2.0, "logit": 0.5, "sqrt": 2.0, "rsqrt": 2.0}
NARROW = {"logit": 0.1, "acos": 0.15, "asin": 0.15, "atanh": 0.15}
# Composed functions that need more than one argument.
CALLS: dict[str, Fn] = {
    "addcmul": lambda u: torch.addcmul(u, u, torch.sin(u), value=0.5),
    "addmm": lambda u: torch.addmm(u, u, torch.sin(u), beta=0.5, alpha=2.0),
    "clamp": lambda u: torch.clamp(u, -0.1, 0.2),
    "group_norm": lambda u: F.group_norm(u, 2, _draw(4), _draw(4, seed=1)),
    "hypot": lambda u: torch.hypot(u, 1 + u * u),
    "layer_norm": lambda u: F.layer_norm(u, (4,), _draw(4), _draw(4, seed=1)),
    "lerp": lambda u: torch.lerp(u, torch.sin(u), 0.3),
    "log_sigmoid": F.logsigmoid,
    "log_softmax": lambda u: F.log_softmax(u, dim=-1),
    "logsumexp": lambda u: torch.logsumexp(u, -1),
    "masked_fill": lambda u: torch.masked_fill(u, _draw(4, 4) > 0, 2.0),
    "maximum": lambda u: torch.maximum(u, torch.sin(3 * u)),
    "minimum": lambda u: torch.minimum(u, torch.sin(3 * u)),
    "softmax": lambda u: F.softmax(u, dim=-1),
}
# Nested jvp is not available for torch's own glu, and wrong for its layer_norm: their definitions instead.
PLAIN: dict[str, Fn] = {
    "glu": lambda u: u[..., :2] * torch.sigmoid(u[..., 2:]),
    "layer_norm": lambda u: (
        (u - u.mean(-1, keepdim=True)) / (u.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() * _draw(4)
        + _draw(4, seed=1)
    ),
}
ELEMENTARY = sorted({*rules.RICCATI, *rules.PAIRS, *rules.POWERS, *rules.INTEGRALS, *rules.COMPOSED})


@pytest.mark.parametrize("name", ELEMENTARY)
def test_every_elementary_rule_against_nested_jvp(name: str) -> None:
    fn = CALLS.get(name) or getattr(F, name, None) or getattr(torch, name)
    path = _path(4, 4, centre=CENTRES.get(name, 0.0), spread=NARROW.get(name, 0.3))
    _assert_follows(fn, path, plain=PLAIN.get(name))
    torch.testing.assert_close(fn(Jet(path)).value, fn(path[0]))


@pytest.mark.parametrize(
    "fn",
    [
        lambda u: F.softplus(u, beta=2.0),
        lambda u: F.gelu(u, approximate="tanh"),
        lambda u: F.elu(u, 0.5) + F.leaky_relu(u, 0.2),
        lambda u: u**3 + u**2 - u.pow(7) + u**0 + u.square(),
        lambda u: (2 + u) ** -1.5 + (2 + u) ** u + 2**u + (2 + u) ** torch.tensor(0.5) + torch.tensor(3.0) ** u,
        lambda u: (1 - u) / (2 + u) + 1 / (2 + u) - u / 3 + torch.reciprocal(2 + u),
        lambda u: torch.add(u, u * u, alpha=2) - torch.sub(1 + u, 3, alpha=0.5) + torch.rsub(u, 2.0),
        lambda u: u @ u.mT + _draw(4, 4) @ u - u.T @ _draw(4, 4),
        lambda u: torch.einsum("ij,jk->ik", u, torch.sin(u)) + torch.einsum("ij,jk,kl->il", _draw(4, 4), u, u),
        lambda u: torch.linalg.vecdot(u, torch.sin(u)) + torch.mv(u, u[0]) + torch.tensordot(u, u[1], 1),
        lambda u: F.linear(u, torch.sin(u), u[0]) + F.linear(u, _draw(4, 4), _draw(4)),
        lambda u: F.conv1d(u[None], _draw(2, 4, 3), _draw(2)),
        lambda u: F.conv2d(u[None, None], _draw(2, 1, 3, 3), _draw(2), padding=1),
        lambda u: F.pad(u, (1, 2), value=3.0) * F.pad(u, (2, 1), mode="circular"),
        lambda u: torch.where(u > 0, u * u, 1.0) + torch.sin(u).where(_draw(4, 4) > 0, _draw(4, 4)),
        lambda u: torch.cat([u, _draw(4, 4), u * u]) + torch.stack([u, _draw(4, 4), u]).flatten(0, 1),
        lambda u: torch.stack([a * b for a, b in zip(u.unbind(-1), u.split(1, 0), strict=True)]) + u.chunk(2)[1][0],
        lambda u: u.reshape(2, 8).view(16).unflatten(0, (4, 4)).permute(1, 0)[:, None].squeeze(1).movedim(0, 1),
        lambda u: (u * u).sum(-1, keepdim=True).expand(4, 4) + u.mean(0) + u.flip(0).roll(1, 0).narrow(0, 0, 1),
        lambda u: u + _draw(3, 4, 4) - torch.zeros_like(u) * u.new_ones(4) + sum([u[0], u[1]]),
        lambda u: torch.fft.irfft(torch.fft.rfft(u * u), n=4) + u.index_select(0, torch.tensor([0, 0, 1, 2])),
        lambda u: F.dropout(u, 0.5, training=False) + abs(-u) + F.celu(u, 2.0),
    ],
)
def test_operations_against_nested_jvp(fn: Fn) -> None:
    _assert_follows(fn, _path(4, 4))


def test_constants_cost_nothing_and_change_nothing() -> None:
    u: Any = Jet(_path(3))
    assert all(torch.equal(a, b) for a, b in zip((u + 1).coefficients[1:], u.coefficients[1:], strict=True))
    assert (u + _draw(2, 3)).coefficients[-1].shape == (2, 3)
    assert isinstance(torch.zeros_like(u), Tensor) and isinstance(u > 0, Tensor)
    assert (u.shape, u.ndim, u.dtype, u.size(0), u.dim(), len(u)) == ((3,), 1, torch.float64, 3, 1, 3)
    assert repr(u) == "Jet(order=5, shape=(3,), dtype=torch.float64)"


def test_known_solutions() -> None:
    y = torch.ones(2, dtype=torch.float64)
    for k, c in enumerate(taylor(lambda t, y: y, T, y, 8)):
        torch.testing.assert_close(c, y / math.factorial(k))
    # y' = -2 t y is solved by exp(t_0^2 - t^2), the logistic equation by the sigmoid.
    s = torch.zeros((), dtype=torch.float64)
    wanted = _derivatives(lambda s: torch.exp(T**2 - (T + s) ** 2))
    for c, expected in zip(taylor(lambda t, y: -2 * t * y, T, y, ORDER), wanted, strict=True):
        torch.testing.assert_close(c, expected.expand(2))
    for c, expected in zip(
        taylor(lambda t, y: y * (1 - y), T, torch.sigmoid(s), ORDER), _derivatives(torch.sigmoid), strict=True
    ):
        torch.testing.assert_close(c, expected)


def _solution_by_jvp(f: Fn, t: Tensor, y: Tensor, order: int) -> list[Tensor]:
    """y_k by differentiating f along itself, k times nested."""
    along: Callable[[Tensor, Tensor], Tensor] = f
    found = [y]
    for k in range(1, order + 1):
        found.append(along(t, y) / math.factorial(k))
        along = _lie(along, f)
    return found


def _lie(g: Fn, f: Fn) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: torch.func.jvp(g, (t, y), (torch.ones_like(t), f(t, y)))[1]


def _assert_solves(f: Fn, t: Tensor, y: Tensor, order: int = ORDER) -> None:
    for found, expected in zip(taylor(f, t, y, order), _solution_by_jvp(f, t, y, order), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def net(seeded: Fn) -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 3)).double()


def _timed(net: nn.Module) -> Fn:
    """A field of time and state, as users write them."""
    return lambda t, y: net(torch.cat([torch.sin(t).expand(y.shape[0], 1), y], dim=-1))


@pytest.mark.parametrize("order", range(ORDER + 1))
def test_a_network_against_nested_jvp(net: nn.Module, order: int) -> None:
    _assert_solves(_timed(net), T, _draw(5, 3), order)


def test_a_pendulum_against_nested_jvp() -> None:
    def pendulum(t: Any, y: Any) -> Any:
        angle, speed = y.unbind(-1)
        return torch.stack([speed, -torch.sin(angle) - 0.1 * speed * t], dim=-1)

    _assert_solves(pendulum, T, _draw(4, 2))


def test_nested_states_are_as_one_tensor() -> None:
    q, v = _draw(4), _draw(4, seed=1)
    parts = taylor(lambda t, y: {"q": y["v"], "v": (-y["q"] * t,)[0]}, T, {"q": q, "v": v}, 4)
    whole = taylor(lambda t, y: torch.stack([y[1], -y[0] * t]), T, torch.stack([q, v]), 4)
    for part, both in zip(parts, whole, strict=True):
        torch.testing.assert_close(torch.stack([part["q"], part["v"]]), both)


def test_fields_that_do_not_look() -> None:
    y = _draw(2, 3)
    still = taylor(lambda t, y: torch.ones(3, dtype=torch.float64), T, y, 3)
    assert torch.equal(still[1], torch.ones_like(y)) and not still[2].any() and not still[3].any()
    clock = taylor(lambda t, y: t, T, y, 3)
    torch.testing.assert_close(clock[2], torch.full_like(y, 0.5))
    assert not clock[3].any() and clock[3].shape == y.shape


def test_gradients_of_first_and_second_order(net: nn.Module, seeded: Fn) -> None:
    y = _draw(2, 3).requires_grad_()
    t = T.clone().requires_grad_()
    weight = _draw(3, 3, seed=5).requires_grad_()

    def last(t: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return taylor(lambda t, y: torch.tanh(F.linear(y, weight)) * torch.exp(t) + F.gelu(y), t, y, 3)[-1]

    with seeded(0):
        assert torch.autograd.gradcheck(last, (t, y, weight))
        assert torch.autograd.gradgradcheck(last, (t, y, weight))
    taylor(_timed(net), t, y, 3)[-1].square().sum().backward()
    grads = [p.grad for p in net.parameters()]
    # The last bias shifts the slope by a constant, which still moves what follows.
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in grads)
    net.zero_grad()


class _Count(TorchDispatchMode):
    """How often each operation ran."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        self.products += func.overloadpacket.__name__ in ("addmm", "mm")
        return func(*args, **(kwargs or {}))


def _cost(net: nn.Module, order: int) -> _Count:
    with _Count() as count, torch.no_grad():
        taylor(_timed(net), T, _draw(5, 3), order)
    return count


def test_the_cost_is_polynomial(net: nn.Module) -> None:
    counts = {order: _cost(net, order) for order in (3, 6, 12)}
    # Three layers with constant weights: once per order, not once per pair of orders.
    assert {order: count.products for order, count in counts.items()} == {3: 9, 6: 18, 12: 36}
    # Doubling the order at most quadruples the rest; nested jvp would multiply it by 2^3, then by 2^6.
    assert counts[6].total < 4 * counts[3].total
    assert counts[12].total < 4 * counts[6].total


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda t, y: torch.lgamma(y), r"no rule for 'lgamma'.*or use regularize=Kinetic\(\)"),
        (lambda t, y: y.cumprod(0), "no rule for 'cumprod'"),
        (lambda t, y: y.add_(1), "not changed in place.*add_"),
        (lambda t, y: F.relu(y, inplace=True), "not changed in place.*relu"),
        (lambda t, y: torch.exp(y, out=torch.empty(2)), "not changed in place.*exp"),
        (lambda t, y: torch.zeros(2).add_(y), "not changed in place.*add_"),
        (lambda t, y: y.__iadd__(1), r"not changed in place.*write y = y \+ x"),
        (lambda t, y: y.__setitem__(0, 1.0), "not changed in place"),
        (lambda t, y: F.dropout(y, 0.5), r"'dropout'.*\.eval\(\)"),
        (lambda t, y: torch.div(y, y, rounding_mode="floor"), "rounding_mode"),
        (lambda t, y: F.conv1d(y[None, None], y[None, None]), "weights that move"),
        (lambda t, y: torch.einsum("i,i,i->i", y, y, y), "of 3 jets"),
        (lambda t, y: y * Jet([torch.ones(2)]), "two expansions"),
        (lambda t, y: (y, y), "structure of y"),
        (lambda t, y: y[None], "shape of y"),
    ],
)
def test_what_has_no_rule_is_refused_with_the_mend(field: Fn, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        taylor(field, torch.tensor(0.0), torch.ones(2), 2)


def test_misuse_is_refused() -> None:
    y = torch.ones(2)
    with pytest.raises(ValueError, match="order is a whole number"):
        taylor(lambda t, y: y, torch.tensor(0.0), y, -1)
    with pytest.raises(ValueError, match=r"torch\.tensor\(0\.0\)"):
        taylor(lambda t, y: y, 0.0, y, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="one shape"):
        Jet([torch.ones(2), torch.ones(3)])
    with pytest.raises(AttributeError, match=r"Jet\.coefficients"):
        _ = Jet([y]).colour


_floats = st.floats(-1.0, 1.0, allow_nan=False)
_paths = st.lists(_floats, min_size=ORDER + 1, max_size=ORDER + 1)


def _jet(numbers: list[float]) -> Any:
    return Jet([torch.tensor(number, dtype=torch.float64) for number in numbers])


def _assert_same(a: Any, b: Any) -> None:
    torch.testing.assert_close(torch.stack(a.coefficients), torch.stack(b.coefficients), rtol=1e-8, atol=1e-8)


@hypothesis.given(_paths, _paths)
def test_identities_hold_coefficient_by_coefficient(p: list[float], q: list[float]) -> None:
    u, v = _jet(p), _jet(q)
    _assert_same(torch.sin(u + v), torch.sin(u) * torch.cos(v) + torch.cos(u) * torch.sin(v))
    _assert_same(torch.exp(u + v), torch.exp(u) * torch.exp(v))
    _assert_same((u * v) / (2 + v) * (2 + v), u * v)
    _assert_same(torch.log(torch.exp(u)), u)
    _assert_same(torch.tanh(u), 2 * torch.sigmoid(2 * u) - 1)


@hypothesis.given(_paths, _paths)
def test_the_product_rule(p: list[float], q: list[float]) -> None:
    def slope(jet: Any) -> Any:
        return Jet([k * c for k, c in enumerate(jet.coefficients)][1:])

    u, v = _jet(p), _jet(q)
    _assert_same(slope(u * v), slope(u) * v + u * slope(v))


@pytest.mark.parametrize("swap", [False, True])
def test_dynamo_takes_it_whole(net: nn.Module, swap: bool) -> None:
    weight = _draw(3, 3)

    def field(t: Any, y: Any) -> Any:
        shifted = (
            (y - weight[0]) / (2 + weight[1] ** 2) if swap else (weight[0] - y) / (2 + y * y) + weight[1].abs() ** y
        )
        return _timed(net)(t, y) + torch.matmul(shifted, weight).softmax(-1) + F.silu(y)

    def run(t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return taylor(field, t, y, 3)

    y = _draw(2, 3)
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(T, y), run(T, y), strict=True):
        torch.testing.assert_close(found, expected)


def test_dynamo_finds_jets_in_a_list_of_operands() -> None:
    weight = _draw(3)

    def field(t: Any, y: Any) -> Any:
        first, rest = y[..., :1], y[..., 1:]
        joined = torch.cat((rest * weight[1:], torch.sin(first)), dim=-1)
        return joined + torch.stack([weight[0] * first[..., 0], y[..., 1], weight[1]], -1) * torch.cat(tensors=[y])

    def run(y: Tensor) -> tuple[Tensor, ...]:
        return taylor(field, T, y, 3)

    y = _draw(3)
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(y), run(y), strict=True):
        torch.testing.assert_close(found, expected)


def test_dynamo_is_not_asked_to_tell_left_from_right() -> None:
    weight = _draw(3, 3)
    compiled = torch.compile(lambda y: taylor(lambda t, y: y @ weight, T, y, 2), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"write torch\.matmul"):
        compiled(_draw(3))


def test_vmap_over_jets(net: nn.Module) -> None:
    y = _draw(4, 2, 3)
    mapped = torch.func.vmap(lambda y: taylor(_timed(net), T, y, 3))(y)
    for k, found in enumerate(mapped):
        torch.testing.assert_close(found[1], taylor(_timed(net), T, y[1], 3)[k])
