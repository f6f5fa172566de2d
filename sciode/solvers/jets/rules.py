"""Which operation follows which rule: names of torch's functions and methods, and what each rule needs to know.

Tables only; `jet.py` reads them. A new elementary function is one line in RICCATI (its slope is a polynomial of the
function itself), PAIRS, POWERS, INTEGRALS (its slope is a function of the argument) or COMPOSED (written with others).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

__all__ = [
    "AFFINE",
    "ALIASES",
    "ATTRIBUTES",
    "COMPOSED",
    "INTEGRALS",
    "JOINING",
    "LINEAR",
    "LOCALLY_CONSTANT",
    "MULTILINEAR",
    "PAIRS",
    "PARTING",
    "POWERS",
    "RICCATI",
]

_ROOT_PI = math.sqrt(math.pi)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What the value alone answers.
ATTRIBUTES = _words("shape ndim dtype device layout requires_grad is_cuda is_cpu itemsize nbytes")

# Operations whose result doesn't move with the argument (almost everywhere): they see the value, and give tensors.
LOCALLY_CONSTANT = _words(
    """
    size dim numel nelement stride is_floating_point is_complex is_contiguous element_size get_device
    zeros_like ones_like full_like new_zeros new_ones new_full new_tensor new_empty empty_like
    gt ge lt le eq ne isnan isinf isfinite sign sgn floor ceil round trunc argmax argmin argsort result_type
    """
)

# Linear in the first argument; the others are constants. Applied coefficient by coefficient.
LINEAR = _words(
    """
    neg positive sum mean cumsum diff trace real imag conj deg2rad rad2deg
    reshape reshape_as view view_as flatten unflatten ravel squeeze unsqueeze transpose swapaxes swapdims t permute
    movedim moveaxis adjoint expand expand_as broadcast_to repeat tile repeat_interleave flip fliplr flipud roll
    rot90 __getitem__ select narrow index_select gather take take_along_dim masked_select unfold fold
    diagonal diag diag_embed tril triu contiguous clone detach to type_as float double half bfloat16
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d interpolate pixel_shuffle
    fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn
    fft_irfftn fft_fftshift fft_ifftshift
    """
)

# Linear in several operands at once: products.
MULTILINEAR = _words("mul matmul mm bmm mv dot inner outer einsum tensordot cross linalg_cross linalg_vecdot kron")

# Linear in the first argument but for one constant term: its keyword and its place.
AFFINE = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), ("bias", 2)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), ("bias", 2)),
    "pad": ("value", 3),
}

# A list of operands becomes one, or one operand a tuple of parts.
JOINING = _words("cat stack hstack vstack dstack column_stack")
PARTING = _words("split split_with_sizes chunk unbind tensor_split")

# g' = (a + b g + c g^2) u'.
RICCATI: dict[str, tuple[float, float, float]] = {
    "exp": (0, 1, 0),
    "exp2": (0, math.log(2), 0),
    "expm1": (1, 1, 0),
    "sigmoid": (0, 1, -1),
    "tan": (1, 0, 1),
    "tanh": (1, 0, -1),
}

# g' = sign h u', h' = back g u': the partner h, sign, back.
PAIRS: dict[str, tuple[Callable[[Any], Any], int, int]] = {
    "sin": (torch.cos, 1, -1),
    "cos": (torch.sin, -1, 1),
    "sinh": (torch.cosh, 1, 1),
    "cosh": (torch.sinh, 1, 1),
}

# g = u^p.
POWERS: dict[str, float] = {"rsqrt": -0.5, "sqrt": 0.5}

# g' = d(u) u': d as a function of u and the operation's own arguments.
INTEGRALS: dict[str, Callable[..., Any]] = {
    "acos": lambda u: -torch.rsqrt(1 - u * u),
    "acosh": lambda u: torch.rsqrt(u - 1) * torch.rsqrt(u + 1),
    "asin": lambda u: torch.rsqrt(1 - u * u),
    "asinh": lambda u: torch.rsqrt(1 + u * u),
    "atan": lambda u: 1 / (1 + u * u),
    "atanh": lambda u: 1 / (1 - u * u),
    "erf": lambda u: torch.exp(-u * u) * (2 / _ROOT_PI),
    "erfc": lambda u: torch.exp(-u * u) * (-2 / _ROOT_PI),
    "log": lambda u: 1 / u,
    "log10": lambda u: (1 / math.log(10)) / u,
    "log1p": lambda u: 1 / (1 + u),
    "log2": lambda u: (1 / math.log(2)) / u,
    "logit": lambda u: 1 / (u * (1 - u)),
    # Above its threshold torch returns u itself, whose slope differs from the sigmoid's by 2e-9 at most.
    "softplus": lambda u, beta=1.0, threshold=20.0: torch.sigmoid(beta * u),
}


def _softmax(u: Any, dim: int, dtype: torch.dtype | None = None) -> Any:
    weights = torch.exp(_shifted(u if dtype is None else u.to(dtype), dim))
    return weights / weights.sum(dim, keepdim=True)


def _log_softmax(u: Any, dim: int, dtype: torch.dtype | None = None) -> Any:
    shifted = _shifted(u if dtype is None else u.to(dtype), dim)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


def _logsumexp(u: Any, dim: int, keepdim: bool = False) -> Any:
    # Two results differ by the same constant at every entry: read the first.
    first = (u - _log_softmax(u, dim)).narrow(dim, 0, 1)
    return first if keepdim else first.squeeze(dim)


def _shifted(u: Any, dim: int) -> Any:
    """Move u so that exp cannot overflow; what is subtracted cancels, and so carries no derivative."""
    return u - u.value.detach().amax(dim, keepdim=True)


def _gelu(u: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return 0.5 * u * (1 + torch.erf(u * math.sqrt(0.5)))
    return 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)))


def _elu(u: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return torch.where(u > 0, u, alpha * _expm1_below(u))


def _celu(u: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return torch.where(u > 0, u, alpha * _expm1_below(u, 1 / alpha))


def _selu(u: Any, inplace: bool = False) -> Any:
    return 1.0507009873554805 * _elu(u, 1.6732632423543772)


def _expm1_below(u: Any, scale: float = 1.0) -> Any:
    # The exponential of a positive argument could overflow, and its infinite slope times zero is no number.
    return torch.expm1(scale * torch.where(u > 0, 0.0, u))


def _normalized(u: Any, axes: tuple[int, ...], eps: float) -> Any:
    centred = u - u.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)


def _scaled(u: Any, weight: Any, bias: Any) -> Any:
    u = u if weight is None else u * weight
    return u if bias is None else u + bias


def _layer_norm(u: Any, shape: tuple[int, ...], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return _scaled(_normalized(u, tuple(range(-len(shape), 0)), eps), weight, bias)


def _group_norm(u: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    normal = _normalized(u.reshape(u.shape[0], groups, -1), (-1,), eps).reshape(u.shape)
    channels = (-1, *(1,) * (u.ndim - 2))
    return _scaled(normal, *(None if part is None else part.reshape(channels) for part in (weight, bias)))


def _clamp(u: Any, min: Any = None, max: Any = None) -> Any:
    u = u if min is None else torch.where(u < min, min, u)
    return u if max is None else torch.where(u > max, max, u)


def _glu(u: Any, dim: int = -1) -> Any:
    left, right = u.chunk(2, dim)
    return left * torch.sigmoid(right)


def _addmm(base: Any, left: Any, right: Any, beta: float = 1, alpha: float = 1) -> Any:
    return beta * base + alpha * torch.matmul(left, right)


# Written with operations that have rules. Where a function has a kink, the branch is that of the value. `inplace` is
# part of some signatures, and False: jets refuse it.
COMPOSED: dict[str, Callable[..., Any]] = {
    "abs": lambda u: u * torch.sign(u),
    "addcmul": lambda base, left, right, value=1: base + value * (left * right),
    "addmm": _addmm,
    "celu": _celu,
    "clamp": _clamp,
    "elu": _elu,
    "gelu": _gelu,
    "glu": _glu,
    "group_norm": _group_norm,
    "hardtanh": lambda u, min_val=-1.0, max_val=1.0, inplace=False: _clamp(u, min_val, max_val),
    "hypot": lambda u, v: torch.sqrt(u * u + v * v),
    "layer_norm": _layer_norm,
    "leaky_relu": lambda u, negative_slope=0.01, inplace=False: torch.where(u > 0, u, negative_slope * u),
    "lerp": lambda start, end, weight: start + weight * (end - start),
    "log_sigmoid": lambda u: -torch.nn.functional.softplus(-u),
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "masked_fill": lambda u, mask, value: torch.where(mask, value, u),
    "maximum": lambda u, v: torch.where(u >= v, u, v),
    "minimum": lambda u, v: torch.where(u <= v, u, v),
    "mish": lambda u, inplace=False: u * torch.tanh(torch.nn.functional.softplus(u)),
    "relu": lambda u, inplace=False: torch.where(u > 0, u, 0.0),
    "relu6": lambda u, inplace=False: _clamp(u, 0.0, 6.0),
    "selu": _selu,
    "silu": lambda u, inplace=False: u * torch.sigmoid(u),
    "softmax": _softmax,
    "softsign": lambda u: u / (1 + torch.abs(u)),
    "tanhshrink": lambda u: u - torch.tanh(u),
}

# Other names of the same operations.
ALIASES = {
    "__add__": "add",
    "__matmul__": "matmul",
    "__mul__": "mul",
    "__pow__": "pow",
    "__sub__": "sub",
    "__truediv__": "div",
    "absolute": "abs",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arctanh": "atanh",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "getitem": "__getitem__",
    "logsigmoid": "log_sigmoid",
    "multiply": "mul",
    "negative": "neg",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_exp2": "exp2",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "special_log_softmax": "log_softmax",
    "special_logit": "logit",
    "special_logsumexp": "logsumexp",
    "special_softmax": "softmax",
    "subtract": "sub",
    "swish": "silu",
    "true_divide": "div",
    "truediv": "div",
    "vecdot": "linalg_vecdot",
}
