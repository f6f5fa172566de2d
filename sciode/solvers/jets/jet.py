"""The jet: a tensor that moves, known by its Taylor coefficients, on which a field's own code can be called."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import rules, series
from .series import Series, Step

__all__ = ["Jet", "Joining", "Tape"]

# The series that depend on one another, in the order in which they came about, each with its next coefficient.
Tape = list[tuple[Series, Step]]


@final
class Jet:
    """u(s) = sum_k c_k s^k up to some order, with c_k = (1/k!) d^k u/ds^k: tensors of one shape [...].

    Torch functions, nn.Modules and operators take a Jet where they take a tensor, and return the Jet of the result.
    A Jet is no Tensor: `isinstance(y, Tensor)` is False. Comparisons look at c_0 alone. Nothing is changed in place.
    With a tape, what is computed from the jet is recorded there, so that one more coefficient can be added to all.

    Source: Bettencourt, Johnson, Duvenaud: Taylor-mode automatic differentiation for higher-order derivatives (2019).
    """

    def __init__(self, coefficients: Sequence[Tensor], tape: Tape | None = None) -> None:
        # The tape appends to this very list.
        known = coefficients if tape is not None and isinstance(coefficients, list) else list(coefficients)
        if not known or any(c.shape != known[0].shape for c in known):
            shapes = [tuple(c.shape) for c in known]
            raise ValueError(f"Jet: the coefficients are tensors of one shape, at least one; got shapes {shapes}")
        self.known = known
        self.tape = tape

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {})

    @property
    def coefficients(self) -> tuple[Tensor, ...]:
        """(c_0, ..., c_order), each [...]."""
        return tuple(self.known)

    @property
    def order(self) -> int:
        """The highest power of s that is known."""
        return len(self.known) - 1

    @property
    def value(self) -> Tensor:
        """c_0 [...]: what a field sees that looks at the present only."""
        return self.known[0]

    @property
    def T(self) -> Jet:
        """All axes reversed."""
        return call(torch.permute, (self, tuple(reversed(range(self.value.ndim)))), {})

    @property
    def mT(self) -> Jet:
        """The last two axes exchanged."""
        return call(torch.transpose, (self, -2, -1), {})

    def __getattr__(self, name: str) -> Any:
        if name in rules.ATTRIBUTES:
            return getattr(self.known[0], name)
        member = None if name.startswith("__") else getattr(torch.Tensor, name, None)
        if not callable(member):
            raise AttributeError(f"a Jet has no attribute {name!r}; its tensors are in Jet.coefficients")
        return lambda *args, **kwargs: _named(name, member, (self, *args), kwargs)

    def __repr__(self) -> str:
        return f"Jet(order={self.order}, shape={tuple(self.value.shape)}, dtype={self.value.dtype})"

    def __len__(self) -> int:
        return len(self.known[0])

    def __iter__(self) -> Iterator[Jet]:
        return iter(call(torch.unbind, (self,), {}))

    def __getitem__(self, index: Any) -> Jet:
        return _named("__getitem__", operator.getitem, (self, index), {})

    def __neg__(self) -> Jet:
        return call(torch.neg, (self,), {})

    def __abs__(self) -> Jet:
        return call(torch.abs, (self,), {})

    def __add__(self, other: Any) -> Jet:
        return call(torch.add, (self, other), {})

    def __radd__(self, other: Any) -> Jet:
        return call(torch.add, (other, self), {})

    def __sub__(self, other: Any) -> Jet:
        return call(torch.sub, (self, other), {})

    def __rsub__(self, other: Any) -> Jet:
        return call(torch.sub, (other, self), {})

    def __mul__(self, other: Any) -> Jet:
        return call(torch.mul, (self, other), {})

    def __rmul__(self, other: Any) -> Jet:
        return call(torch.mul, (self, other), {})

    def __truediv__(self, other: Any) -> Jet:
        return call(torch.div, (self, other), {})

    def __rtruediv__(self, other: Any) -> Jet:
        return call(torch.div, (other, self), {})

    def __pow__(self, other: Any) -> Jet:
        return call(torch.pow, (self, other), {})

    def __rpow__(self, other: Any) -> Jet:
        return call(torch.pow, (other, self), {})

    def __matmul__(self, other: Any) -> Jet:
        return call(torch.matmul, (self, other), {})

    def __rmatmul__(self, other: Any) -> Jet:
        return call(torch.matmul, (other, self), {})

    def __lt__(self, other: Any) -> Tensor:
        return call(torch.lt, (self, other), {})

    def __le__(self, other: Any) -> Tensor:
        return call(torch.le, (self, other), {})

    def __gt__(self, other: Any) -> Tensor:
        return call(torch.gt, (self, other), {})

    def __ge__(self, other: Any) -> Tensor:
        return call(torch.ge, (self, other), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise _in_place("__setitem__")

    def __iadd__(self, other: Any) -> Jet:
        raise _in_place("+=")

    def __isub__(self, other: Any) -> Jet:
        raise _in_place("-=")

    def __imul__(self, other: Any) -> Jet:
        raise _in_place("*=")

    def __itruediv__(self, other: Any) -> Jet:
        raise _in_place("/=")


@final
class Joining(TorchFunctionMode):
    """While it is entered, Dynamo finds the jets in a list of operands (`torch.cat((a, b))`), where it never looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """By the rule of `func`, or as it is."""
        parts = args[0] if args and isinstance(args[0], tuple | list) else (kwargs or {}).get("tensors", ())
        if any(isinstance(part, Jet) for part in (*args, *parts)):
            return call(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func` with at least one Jet among its arguments, by the rule of its name."""
    return _named(getattr(func, "__name__", str(func)), func, args, kwargs)


def _named(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `call`, where the name is known: Dynamo cannot read it off every method of a tensor."""
    if name in _SWAPPED:
        name, args = _SWAPPED[name], (args[1], args[0])
    # Dynamo knows a function's name well enough to look it up, and no more: what follows uses the table's own string.
    known = _NAMES.get(name)
    if known is None:
        raise _in_place(name) if _writes(name) else _without_rule(name)
    if kwargs.get("inplace") or kwargs.get("out") is not None:
        raise _in_place(known)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("inplace", "out", "_stacklevel")}
    for key in ("tensors", "input"):
        if key in kwargs:
            args = (kwargs.pop(key), *args)
    if "other" in kwargs:
        args = (*args, kwargs.pop("other"))
    if any(isinstance(value, Jet) for value in kwargs.values()):
        raise _without_rule(known, " with a jet as a keyword; pass it by position")
    return _HANDLERS[known](known, func, args, kwargs)


def _writes(name: str) -> bool:
    return name.startswith("__i") or name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _in_place(name: str) -> ValueError:
    return ValueError(
        f"a jet is not changed in place ({name!r}): write y = y + x for y += x, and leave out inplace=True"
    )


def _without_rule(name: str, why: str = "") -> ValueError:
    return ValueError(
        f"a jet has no rule for {name!r}{why}: write the field with operations that have one "
        "(sciode.solvers.jets.rules lists them), or use regularize=Kinetic(), which needs no higher derivatives"
    )


def _value(part: Any) -> Any:
    return part.known[0] if isinstance(part, Jet) else part


def _grow(parents: Sequence[Jet], known: Series, step: Step) -> Jet:
    """The jet whose first coefficient is `known`, carried to the order all parents have; the tape does the rest."""
    tape = parents[0].tape
    for parent in parents:
        if parent.tape is not tape:
            raise ValueError("jets of two expansions meet: give constants to a field as tensors, not as jets")
    for k in range(1, min(len(parent.known) for parent in parents)):
        known.append(step(k))
    if tape is not None:
        tape.append((known, step))
    return Jet(known, tape)


def _fit(part: Tensor, like: Tensor) -> Tensor:
    """A coefficient of an operand that a constant has widened, in shape or in type."""
    part = part if part.dtype == like.dtype else part.to(like.dtype)
    return part if part.shape == like.shape else part.expand(like.shape)


def _locally_constant(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    return func(*(_value(arg) for arg in args), **kwargs)


def _linear(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    u, rest = args[0], tuple(_value(arg) for arg in args[1:])
    if not isinstance(u, Jet):
        return func(u, *rest, **kwargs)

    def op(c: Tensor) -> Tensor:
        return func(c, *rest, **kwargs)

    return _grow((u,), [op(u.known[0])], series.linear(op, u.known))


def _sum(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    """a + alpha b and a - alpha b: a constant shifts the value only."""
    a, b = (args[1], args[0]) if name == "rsub" else args[:2]
    alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    b = b if alpha == 1 else alpha * b
    plus = name == "add"
    first = _value(a) + _value(b) if plus else _value(a) - _value(b)
    if isinstance(a, Jet) and isinstance(b, Jet):
        left, right = a.known, b.known
        return _grow((a, b), [first], lambda k: left[k] + right[k] if plus else left[k] - right[k])
    if isinstance(a, Jet):
        left = a.known
        return _grow((a,), [first], lambda k: _fit(left[k], first))
    right = b.known
    return _grow((b,), [first], lambda k: _fit(right[k] if plus else -right[k], first))


def _multilinear(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    if func is torch.Tensor.matmul and torch.compiler.is_compiling():
        # Dynamo gives `jet @ tensor` and `tensor @ jet` in one order: a silent transposition.
        raise _without_rule("@", " while compiling; write torch.matmul(a, b)")
    moving = [i for i, arg in enumerate(args) if isinstance(arg, Jet)]
    if name == "mul" and args[0] is args[1]:
        return _square(name, func, args, kwargs)
    if len(moving) == 1:
        i = moving[0]

        def with_one(c: Tensor) -> Tensor:
            return func(*args[:i], c, *args[i + 1 :], **kwargs)

        u = args[i]
        return _grow((u,), [with_one(u.known[0])], series.linear(with_one, u.known))
    if len(moving) > 2:
        raise _without_rule(name, f" of {len(moving)} jets; multiply two at a time")
    i, j = moving

    def with_two(a: Tensor, b: Tensor) -> Tensor:
        return func(*args[:i], a, *args[i + 1 : j], b, *args[j + 1 :], **kwargs)

    a, b = args[i], args[j]
    return _grow((a, b), [with_two(a.known[0], b.known[0])], series.product(with_two, a.known, b.known))


def _square(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    u = args[0].known
    return _grow(args[:1], [u[0] * u[0]], series.square(u))


def _affine(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    u, rest = args[0], args[1:]
    if not isinstance(u, Jet) or any(isinstance(arg, Jet) for arg in rest):
        if name != "linear":
            raise _without_rule(name, " with weights that move")
        product = call(torch.matmul, (u, rest[0].mT), {})
        bias = kwargs.get("bias", rest[1] if len(rest) > 1 else None)
        return product if bias is None else product + bias
    keyword, place = rules.AFFINE[name]
    bare = (*args[1:place], None, *args[place + 1 :]) if len(args) > place else args[1:]
    named = {key: value for key, value in kwargs.items() if key != keyword}
    grown = series.linear(lambda c: func(c, *bare, **named), u.known)
    return _grow((u,), [func(u.known[0], *rest, **kwargs)], grown)


def _joining(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    parts, rest = list(args[0]), args[1:]
    jets = [part for part in parts if isinstance(part, Jet)]
    zeros = [part if isinstance(part, Jet) else torch.zeros_like(part) for part in parts]

    def step(k: int) -> Tensor:
        return func([part.known[k] if isinstance(part, Jet) else part for part in zeros], *rest, **kwargs)

    return _grow(jets, [func([_value(part) for part in parts], *rest, **kwargs)], step)


def _parting(name: str, func: Any, args: Any, kwargs: Any) -> tuple[Jet, ...]:
    u, rest = args[0], args[1:]
    # Dynamo doesn't see through Tensor.split, which is written in Python.
    func = torch.split if name == "split" else func
    # Cut once for all parts: the part that first asks for order k fills row k.
    rows = [func(u.known[0], *rest, **kwargs)]

    def part(i: int) -> Step:
        def step(k: int) -> Tensor:
            if len(rows) <= k:
                rows.append(func(u.known[k], *rest, **kwargs))
            return rows[k][i]

        return step

    return tuple(_grow((u,), [first], part(i)) for i, first in enumerate(rows[0]))


def _where(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    # Tensor.where(self, condition, other) names the two alternatives first and last.
    mask, a, b = (args[1], args[0], args[2]) if isinstance(args[0], Jet) or args[0].dtype != torch.bool else args
    first = torch.where(mask, _value(a), _value(b))

    def at(part: Any, k: int) -> Any:
        return part.known[k] if isinstance(part, Jet) else 0.0

    return _grow(
        [part for part in (a, b) if isinstance(part, Jet)],
        [first],
        lambda k: _fit(torch.where(mask, at(a, k), at(b, k)), first),
    )


def _quotient(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    a, b = args[:2]
    if kwargs.get("rounding_mode") is not None:
        raise _without_rule(name, " with rounding_mode")
    if not isinstance(b, Jet):
        return _grow((a,), [a.known[0] / b], series.linear(lambda c: c / b, a.known))
    known = [_value(a) / b.known[0]]
    if isinstance(a, Jet):
        return _grow((a, b), known, series.quotient(a.known, b.known, known))
    return _grow((b,), known, series.quotient(None, b.known, known))


def _power(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    u, exponent = args if len(args) > 1 else (args[0], kwargs["exponent"])
    if isinstance(exponent, Jet):
        return call(torch.exp, (exponent * _log(u, exponent.value),), {})
    if isinstance(exponent, int | float) and exponent == int(exponent) and exponent >= 0:
        return _whole_power(u, int(exponent))
    known = [torch.pow(u.known[0], exponent)]
    return _grow((u,), known, series.power(u.known, exponent, known))


def _log(u: Any, exponent: Tensor) -> Any:
    """log u in the precision of the power."""
    if not isinstance(u, Jet | Tensor):
        return math.log(u)
    wide: Any = u.to(torch.promote_types(u.dtype, exponent.dtype))
    return torch.log(wide)


def _whole_power(u: Jet, exponent: int) -> Jet:
    """u^n by repeated squaring: unlike the recurrence of powers, also where u is zero."""
    if exponent == 0:
        return u * 0.0 + 1.0
    half = u if exponent < 4 else _whole_power(u, exponent // 2)
    if exponent == 1:
        return u
    squared = half * half
    return u * squared if exponent % 2 else squared


def _root(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    known = [func(args[0].known[0])]
    return _grow(args[:1], known, series.power(args[0].known, rules.POWERS[name], known))


def _riccati(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    known = [func(args[0].known[0])]
    return _grow(args[:1], known, series.riccati(args[0].known, known, *rules.RICCATI[name]))


def _pair(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    partner, sign, back = rules.PAIRS[name]
    u = args[0].known
    known = [func(u[0])]
    return _grow(args[:1], known, series.pair(u, known, [partner(u[0])], sign, back))


def _integral(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    slope = rules.INTEGRALS[name](*args, **kwargs)
    first = func(args[0].known[0], *args[1:], **kwargs)
    return _grow(args[:1], [first], series.integral(args[0].known, slope.known))


def _composed(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    return rules.COMPOSED[name](*args, **kwargs)


def _dropout(name: str, func: Any, args: Any, kwargs: Any) -> Jet:
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5):
        raise _without_rule(name, ", which draws at random (call .eval() on the network)")
    return args[0]


_HANDLERS: dict[str, Callable[[str, Any, Any, Any], Any]] = {
    **dict.fromkeys(rules.LOCALLY_CONSTANT, _locally_constant),
    **dict.fromkeys(rules.LINEAR, _linear),
    **dict.fromkeys(rules.MULTILINEAR, _multilinear),
    **dict.fromkeys(rules.AFFINE, _affine),
    **dict.fromkeys(rules.JOINING, _joining),
    **dict.fromkeys(rules.PARTING, _parting),
    **dict.fromkeys(rules.RICCATI, _riccati),
    **dict.fromkeys(rules.PAIRS, _pair),
    **dict.fromkeys(rules.POWERS, _root),
    **dict.fromkeys(rules.INTEGRALS, _integral),
    **dict.fromkeys(rules.COMPOSED, _composed),
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    "div": _quotient,
    "dropout": _dropout,
    "pow": _power,
    "reciprocal": lambda name, func, args, kwargs: _quotient(name, func, (1.0, args[0]), {}),
    "square": _square,
    "where": _where,
}
# A swapped operation: Dynamo writes `jet - tensor` as Tensor.__rsub__(tensor, jet).
_SWAPPED = {"__rdiv__": "div", "__rtruediv__": "div", "__rpow__": "pow", "__rsub__": "sub"}
_NAMES = {**{name: name for name in _HANDLERS}, **rules.ALIASES}
