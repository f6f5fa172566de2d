"""Every public boundary: misuse is refused before the work starts, with the argument's name and the mend."""

from __future__ import annotations

import types
import weakref
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .books import sent
from .fields import Field
from .terms import ODETerm, SDETerm
from .transforms import mapped, transforming
from .trees import Layout, leaves_of, path_of

__all__ = [
    "Times",
    "check_finite",
    "check_first",
    "check_independence",
    "check_prior",
    "check_state",
    "check_times",
    "check_tolerance",
    "default_batch_dims",
    "is_independent",
]


def check_state(y0: Any) -> None:
    """Tensors of one floating or complex dtype on one device."""
    leaves = leaves_of(y0)
    if not leaves or any(isinstance(leaf, Tensor) and leaf.numel() == 0 for leaf in leaves):
        raise ValueError("y0: the state is empty; pass a tensor, or a tuple or dict of tensors")
    for i, leaf in enumerate(leaves):
        complaint = _complaint(leaf, leaves[0])
        if complaint is not None:
            raise ValueError(f"y0{path_of(y0, i)}: {complaint}")


def _complaint(leaf: Any, first: Any) -> str | None:
    """What is wrong with a leaf of the state beside the first one, and the mend."""
    if not isinstance(leaf, Tensor):
        return f"expected a tensor, got {type(leaf).__name__}; use torch.as_tensor"
    if mapped(leaf):
        return "torch.func.vmap cannot pass through a solve; give y0 the mapped axis as its batch"
    if not (leaf.is_floating_point() or leaf.is_complex()):
        return f"expected a floating or complex dtype, got {leaf.dtype}; use y0.float()"
    if leaf.dtype != first.dtype or leaf.device != first.device:
        return (
            f"{leaf.dtype} on {leaf.device}, but the first leaf is {first.dtype} on {first.device}; "
            "give all leaves one dtype and device"
        )
    return None


def check_finite(y0: Any) -> None:
    """No NaN and no infinity."""
    for i, leaf in enumerate(leaves_of(y0)):
        if not transforming() and not bool(leaf.detach().abs().amax() < torch.inf):
            raise ValueError(f"y0{path_of(y0, i)}: contains NaN or infinity; clean the initial state before solving")


def default_batch_dims(y0: Any, batch_dims: int | None) -> int:
    """How many leading axes are samples: given, or 0 for a vector or scalar state and 1 for anything larger."""
    leaves = leaves_of(y0)
    if batch_dims is None:
        batch_dims = 0 if min(leaf.ndim for leaf in leaves) <= 1 and max(leaf.ndim for leaf in leaves) <= 1 else 1
        batch_dims = min(batch_dims, min(leaf.ndim for leaf in leaves))
    if not 0 <= batch_dims <= min(leaf.ndim for leaf in leaves):
        raise ValueError(f"batch_dims: {batch_dims} leading axes, but y0 has shapes {[tuple(x.shape) for x in leaves]}")
    shapes = {tuple(leaf.shape[:batch_dims]) for leaf in leaves}
    if len(shapes) > 1:
        raise ValueError(f"batch_dims: the leaves of y0 have different batch shapes {sorted(shapes)}; pass batch_dims=")
    return batch_dims


_REMEMBERED = 16_384
"""Bytes of output times that are kept for the next solve."""


class Times(NamedTuple):
    """Output times in the direction of the solve, looked through on the host.

    rows [R, T] with R = 1 or B, padded with inf; first, last [R], where each begins and ends; sign, the direction +1
    or -1; host, the same rows as an array.
    """

    rows: Tensor
    first: Tensor
    last: Tensor
    sign: int
    host: np.ndarray


def check_times(ts: Tensor | Sequence[float], batch: tuple[int, ...], device: torch.device) -> Times:
    """The times of a solve. A device is asked once for them, and given them once."""
    if isinstance(ts, Tensor) and ts.requires_grad:
        raise ValueError("ts: gradients with respect to times are not supported; pass ts.detach()")
    # As numbers where a transform hides a tensor's memory.
    given = ts.tolist() if isinstance(ts, Tensor) and transforming() else ts
    times = given.cpu().to(torch.float64).numpy() if isinstance(given, Tensor) else np.asarray(given, dtype=np.float64)
    if times.nbytes > _REMEMBERED or torch.is_inference_mode_enabled():
        return _looked_through(times, batch, device)
    return _remembered(times.tobytes(), times.shape, batch, device)


@lru_cache(maxsize=64)
def _remembered(times: bytes, shape: tuple[int, ...], batch: tuple[int, ...], device: torch.device) -> Times:
    """A training loop asks for the same times again and again."""
    return _looked_through(np.frombuffer(times, dtype=np.float64).reshape(shape), batch, device)


def _looked_through(times: np.ndarray, batch: tuple[int, ...], device: torch.device) -> Times:
    if times.ndim != 1 and tuple(times.shape[1:]) != batch:
        raise ValueError(
            f"ts: expected shape [T] or [T, *batch] = [T, {', '.join(map(str, batch))}], got {[*times.shape]}"
        )
    if times.shape[0] < 2:
        raise ValueError(f"ts: expected at least two times (the first is the initial time), got {times.shape[0]}")
    rows = times.reshape(times.shape[0], -1).T
    missing = np.isnan(rows)
    if missing[:, 0].any() or (missing[:, :-1] & ~missing[:, 1:]).any():
        raise ValueError("ts: NaN may only fill the end of a sample's times; move the valid times to the front")
    if np.isinf(rows).any():
        raise ValueError("ts: times must be finite")
    steps = np.diff(rows, axis=1)
    up, down = (steps > 0).any(), (steps < 0).any()
    if (steps == 0).any() or (up and down):
        raise ValueError("ts: times must be strictly increasing or strictly decreasing, the same way for all samples")
    sign = -1 if down else 1
    host = np.where(missing, np.inf, rows * sign)
    last = np.where(missing, -np.inf, host).max(1, keepdims=True)
    there = sent(np.concatenate((host, last), 1), device)
    return Times(there[:, :-1], there[:, 0], there[:, -1], sign, host)


def check_tolerance(name: str, value: Any, y0: Any, layout: Layout, warn_below: float) -> float | Tensor:
    """A non-negative number, or a tree of numbers or tensors like y0: as a number or a row [1, D]."""
    import warnings

    leaves = leaves_of(value)
    for leaf in leaves:
        smallest = float(leaf.min() if isinstance(leaf, Tensor) else leaf)
        if not 0 <= smallest < float("inf"):
            raise ValueError(f"{name}: must be a non-negative number, got {smallest}")
        if name == "rtol" and smallest < warn_below:
            warnings.warn(
                f"rtol={smallest:g} is below what the state's dtype resolves ({warn_below:.1g}); "
                "use float64 or a larger rtol",
                stacklevel=4,
            )
    if len(leaves) == 1 and not isinstance(value, dict | tuple | list | Tensor):
        return float(value)
    states = leaves_of(y0)
    if len(leaves) not in (1, len(states)):
        raise ValueError(f"{name}: expected a number or a tree like y0 with {len(states)} leaves, got {len(leaves)}")
    leaves = leaves * len(states) if len(leaves) == 1 else leaves
    real = states[0].real.dtype
    parts = [
        torch.as_tensor(leaf, dtype=real, device=state.device).expand(shape).reshape(1, -1)
        for leaf, state, shape in zip(leaves, states, layout.shapes, strict=True)
    ]
    return torch.cat(parts, dim=1)


def check_first(field: Field, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The first evaluation, (f,) or (f, g), with every complaint about what the user's functions returned."""
    if isinstance(field.term, ODETerm):
        return (_checked(field, "field", field.term.field, t, y, 0),)
    drift = _checked(field, "drift", field.term.drift, t, y, 0)
    diffusion = _checked(field, "diffusion", field.term.diffusion, t, y, 0 if field.term.noise == "diagonal" else 1)
    if field.term.noise == "scalar" and diffusion.shape[-1] != 1:
        raise ValueError(
            f"diffusion: scalar noise has one Brownian motion, got {diffusion.shape[-1]}; use noise='general'"
        )
    return drift, diffusion


def check_prior(field: Field, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The prior's drift at the start, (h,), with the same complaints; () without a prior."""
    if not isinstance(field.term, SDETerm) or field.term.prior_drift is None:
        return ()
    return (_checked(field, "prior_drift", field.term.prior_drift, t, y, 0),)


def _checked(field: Field, name: str, function: Any, t: Tensor, y: Tensor, trailing: int) -> Tensor:
    """Evaluate and compare with the state, leaf by leaf."""
    value = field.call(function, t, y)
    state = field.layout.unravel(y)
    want = leaves_of(state)
    try:
        got = field.layout.spec.flatten_up_to(value)
    except ValueError as error:
        raise _nesting(name, value, want) from error
    if field.layout.single and isinstance(value, tuple | list | dict):
        raise _nesting(name, value, want)
    for i, (out, leaf) in enumerate(zip(got, want, strict=True)):
        where = f"{name}: output{path_of(state, i)}"
        if not isinstance(out, Tensor):
            raise ValueError(f"{where} is a {type(out).__name__}; return a tensor")
        shape = tuple(out.shape[: out.ndim - trailing]) if trailing else tuple(out.shape)
        if shape != tuple(leaf.shape):
            rest = " plus one axis for the Brownian motions" if trailing else ""
            raise ValueError(f"{where} has shape {tuple(out.shape)}; expected the state's {tuple(leaf.shape)}{rest}")
        if out.device != leaf.device:
            raise ValueError(f"{where} is on {out.device}, the state on {leaf.device}; move the field or y0")
        if out.dtype != leaf.dtype and not torch.is_autocast_enabled(leaf.device.type):
            raise ValueError(f"{where} is {out.dtype}, the state {leaf.dtype}; cast one of them (under autocast we do)")
    flat = field.layout.ravel(value, trailing)
    return flat if flat.dtype == y.dtype else flat.to(y.dtype)


def _nesting(name: str, value: Any, want: list[Any]) -> ValueError:
    keys = f" with keys {sorted(map(str, value))}" if isinstance(value, dict) else ""
    return ValueError(
        f"{name}: returned {len(leaves_of(value))} leaves{keys} for a state of {len(want)}; "
        "return the same nesting as y0"
    )


_independent: dict[Hashable, None] = {}
"""What was found to keep samples apart, at most so many."""
_KEPT = 1024


def check_independence(field: Field, t: Tensor, y: Tensor, first: tuple[Tensor, ...]) -> None:
    """Perturb the last sample: the first must not change. Done once a field, where batch_dims was not given."""
    if is_independent(field):
        return
    with torch.no_grad():
        moved = torch.cat((y[:-1], y[-1:] + 1 + y[-1:].abs()))
        again = field.first(t, moved)
        eps = 100 * torch.finfo(y.dtype).eps
        same = all(
            torch.allclose(a[0], b[0], rtol=eps, atol=eps * float(b.abs().nan_to_num(0.0, 0.0).max()), equal_nan=True)
            for a, b in zip(again, (f.detach() for f in first), strict=True)
        )
    if not same:
        raise ValueError(
            "samples influence each other: pass batch_dims=0 or coupled=True "
            "(the first axis of y0 was taken for the batch; a field that draws random numbers looks the same)"
        )
    if len(_independent) > _KEPT:
        _independent.clear()
    _independent.update(dict.fromkeys(_keys(field)))


def is_independent(field: Field) -> bool:
    """Whether this field has passed the check."""
    return all(key in _independent for key in _keys(field))


def _keys(field: Field) -> list[Hashable]:
    term = field.term
    functions = [term.field] if isinstance(term, ODETerm) else [term.drift, term.diffusion]
    return [_behaviour(f) for f in functions]


def _behaviour(x: Any, depth: int = 4) -> Hashable:
    """What tells one function from another: code, and what it closes over, objects by identity, data by type.

    A lambda made anew with other reals or tensors counts as the same; one with another axis, flag or module does not.
    """
    if isinstance(x, types.MethodType):
        return x.__func__.__code__, _behaviour(x.__self__, depth - 1)
    if isinstance(x, types.FunctionType):
        if depth == 0:
            return x.__code__
        kept = [*map(_content, x.__closure__ or ()), *(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        return x.__code__, *(_behaviour(k, depth - 1) for k in kept)
    if isinstance(x, bool | int | str | None):
        return x
    if not isinstance(x, Tensor):
        # What cannot be referred to weakly (numbers, containers) or has no hash (arrays) is data.
        with suppress(TypeError):
            identity = weakref.ref(x)
            hash(identity)
            return identity
    return type(x)


def _content(cell: types.CellType) -> Any:
    """What a cell of a closure holds; one may be filled only later."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
