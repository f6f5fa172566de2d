"""The workloads of `sciode bench engines`, as data: what is solved, where, by whom, and how fast it ought to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sciode.bench.contestants import Contestant, Peer
from sciode.bench.diffrax_peers import prepare_tuned_diffrax
from sciode.bench.floor import prepare_field
from sciode.bench.peers import prepare_sciode, prepare_torchdiffeq, prepare_torchode
from sciode.bench.problems import Problem, lorenz, neural_ode, van_der_pol
from sciode.bench.stochastic import SDE_PEERS, StochasticProblem, neural_sde

__all__ = ["BEST", "ODE_PEERS", "OURS", "WORKLOADS", "Bar", "Workload", "lineup"]

BEST = "the best peer"
"""In a bar: whichever peer is fastest."""
OURS = ("eager", "compiled", "graph", "graph recompute", "graph direct", "compiled direct", "kernel")
"""The contestants that are our own engines; the second word is the adjoint, without one it is "auto"."""


def _ours(engine: str, adjoint: str = "auto") -> Peer:
    return Peer("sciode", partial(prepare_sciode, engine=engine, adjoint=adjoint))


def _diffrax(adjoint: str | None = None) -> Peer:
    return Peer("diffrax", partial(prepare_tuned_diffrax, adjoint=adjoint), separate="vmap", torch_field=False)


def _adjoint(problem: Problem, mode: str) -> Contestant:
    return prepare_torchdiffeq(problem, "adjoint")


ODE_PEERS = {
    "eager": _ours("eager"),
    "compiled": _ours("compiled"),
    "compiled direct": _ours("compiled", "direct"),
    "graph": _ours("graph"),
    "graph recompute": _ours("graph", "recompute"),
    "graph direct": _ours("graph", "direct"),
    "kernel": _ours("kernel"),
    "field": Peer("torch", prepare_field),
    "diffrax": _diffrax(),
    "diffrax direct": _diffrax("direct"),
    "diffrax recursive": _diffrax("recursive"),
    "torchdiffeq": Peer("torchdiffeq", prepare_torchdiffeq, separate="joint"),
    "torchdiffeq adjoint": Peer("torchdiffeq", _adjoint, separate="joint"),
    "torchode": Peer("torchode", prepare_torchode, joint="per sample"),
}
"""Who may solve an ODE, by the name a workload calls them."""


def lineup(problem: Problem | StochasticProblem) -> dict[str, Peer]:
    """Who may solve this kind of problem."""
    return SDE_PEERS if isinstance(problem, StochasticProblem) else ODE_PEERS


@dataclass(frozen=True)
class Bar:
    """What one of our contestants ought to reach: `text` as the plan has it, and the numbers to judge by.

    limits: (peer, factor): our seconds over the peer's are at most the factor. A peer is a contestant, a library (then
    its fastest contestant) or `BEST`. memory: the same for bytes; "states + outputs" is what no solver can do without.
    """

    ours: str
    text: str
    limits: tuple[tuple[str, float], ...]
    memory: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Workload:
    """One row of the plan: a problem (made when it is needed), a mode, and who is compared where.

    device: "cpu" or "cuda". mode: "forward" or "backward", the gradient of sum(ys^2). repeats: timed calls.
    """

    name: str
    device: str
    problem: Callable[[], Any]
    mode: str
    contestants: tuple[str, ...]
    bars: tuple[Bar, ...]
    repeats: int = 21


def _per_sample(**sizes: Any) -> Problem:
    return replace(neural_ode(**sizes), coupled=False)


_JOINT = ("graph", "compiled", "eager", "diffrax", "torchdiffeq", "torchode")
_JOINT_GRADIENT = (
    "graph recompute", "graph direct", "eager", "diffrax direct", "diffrax recursive", "torchdiffeq",
    "torchdiffeq adjoint", "torchode",
)  # fmt: skip
_SEPARATE = ("graph", "kernel", "eager", "diffrax", "torchode")
_SEPARATE_GRADIENT = (
    "graph recompute", "graph direct", "kernel", "eager", "diffrax direct", "diffrax recursive", "torchode",
)  # fmt: skip
_SDE = ("graph", "kernel", "compiled", "eager", "diffrax unsafe", "diffrax tree", "scan", "torchsde")
_SDE_GRADIENT = (
    "graph recompute", "graph direct", "kernel", "eager", "diffrax unsafe", "diffrax tree", "diffrax tree direct",
    "scan", "torchsde",
)  # fmt: skip
_SMALL: dict[str, Any] = {"batch": 128, "dim": 16, "hidden": 64}
_MIDDLE: dict[str, Any] = {"batch": 1024, "dim": 64, "hidden": 256}
_LARGE: dict[str, Any] = {"batch": 16384, "dim": 128, "hidden": 1024}


def _neural(
    name: str, sizes: dict[str, Any], forward: tuple[Bar, ...], backward: tuple[Bar, ...], coupled: bool
) -> tuple[Workload, Workload]:
    """The same neural ODE forward, and with its gradient."""
    problem = partial(neural_ode if coupled else _per_sample, **sizes)
    plain, gradient = (_JOINT, _JOINT_GRADIENT) if coupled else (_SEPARATE, _SEPARATE_GRADIENT)
    # First, while there is memory: what it evaluates on the tape does not go into a full card's CUDA graph.
    floor = ("field",) if sizes is _LARGE else ()
    return (
        Workload(f"{name} forward", "cuda", problem, "forward", (*floor, *plain), forward),
        Workload(f"{name} backward", "cuda", problem, "backward", (*floor, *gradient), backward),
    )


_VDP = "van der Pol 256, mu 0.5-10, t 0-20, 100 outputs"
_SAMPLES = "<= 0.6 of diffrax vmap"
_SDE_FORWARD = "<= 0.5 of diffrax with UnsafeBrownianPath"
_SDE_BACKWARD = "<= 0.5 of the best of {UnsafeBrownianPath with direct, tree with recursive, a hand-written scan}, "

WORKLOADS: tuple[Workload, ...] = (
    *_neural(
        "neural ODE 128x16",
        _SMALL,
        (Bar("graph", "<= 0.75 of diffrax and <= 1/15 of torchdiffeq", (("diffrax", 0.75), ("torchdiffeq", 1 / 15))),),
        (
            Bar(
                "graph direct",
                "<= 0.6 of diffrax and <= 1/12 of torchdiffeq",
                (("diffrax", 0.6), ("torchdiffeq", 1 / 12)),
            ),
        ),
        coupled=True,
    ),
    *_neural(
        "neural ODE 1024x64",
        _MIDDLE,
        (Bar("graph", "<= 0.8 of diffrax", (("diffrax", 0.8),)),),
        (Bar("graph direct", "<= 0.6 of diffrax", (("diffrax", 0.6),)),),
        coupled=True,
    ),
    *_neural(
        "neural ODE 128x16 per sample",
        _SMALL,
        (Bar("graph", _SAMPLES, (("diffrax", 0.6),)),),
        (Bar("graph direct", _SAMPLES, (("diffrax", 0.6),)),),
        coupled=False,
    ),
    *_neural(
        "neural ODE 1024x64 per sample",
        _MIDDLE,
        (Bar("graph", _SAMPLES, (("diffrax", 0.6),)),),
        (Bar("graph direct", _SAMPLES, (("diffrax", 0.6),)),),
        coupled=False,
    ),
    *_neural(
        "neural ODE 16384x128",
        _LARGE,
        (Bar("graph", "<= 1.15 of the bare field replayed for the same evaluations", (("field", 1.15),)),),
        (
            Bar("graph direct", "direct <= 0.85 of the best peer", ((BEST, 0.85),)),
            Bar(
                "graph recompute",
                "recompute <= 1.1 of the best peer at <= 1/4 of its memory",
                ((BEST, 1.1),),
                ((BEST, 0.25),),
            ),
        ),
        coupled=True,
    ),
    Workload(
        _VDP,
        "cuda",
        van_der_pol,
        "forward",
        ("graph", "kernel", "eager", "diffrax", "torchode", "torchdiffeq"),
        (
            Bar("graph", "<= 1/12 of diffrax vmap", (("diffrax", 1 / 12),)),
            Bar("kernel", "<= 1/200 of diffrax vmap", (("diffrax", 1 / 200),)),
        ),
    ),
    Workload(
        "one million Lorenz trajectories",
        "cuda",
        lorenz,
        "forward",
        ("kernel", "graph", "diffrax"),
        (
            Bar(
                "kernel",
                ">= 50x diffrax vmap's throughput; memory <= 2x states + outputs",
                (("diffrax", 1 / 50),),
                (("states + outputs", 2.0),),
            ),
        ),
        repeats=5,
    ),
    *(
        Workload(f"neural SDE 512x32 {method} {mode}", "cuda", partial(neural_sde, method=method), mode, who, bars)
        for method in ("euler", "reversibleheun")
        for mode, who, bars in (
            ("forward", _SDE, (Bar("kernel", _SDE_FORWARD, (("diffrax unsafe", 0.5),)),)),
            (
                "backward",
                _SDE_GRADIENT,
                (Bar("graph direct", f"{_SDE_BACKWARD}<= 1/100 of torchsde", ((BEST, 0.5), ("torchsde", 0.01))),),
            ),
        )
    ),
    Workload(
        f"CPU {_VDP}",
        "cpu",
        van_der_pol,
        "forward",
        ("compiled", "eager", "diffrax"),
        (Bar("compiled", "<= 1.2 of diffrax jit", (("diffrax", 1.2),)),),
    ),
    Workload(
        "CPU neural ODE 128x16 backward",
        "cpu",
        partial(neural_ode, **_SMALL),
        "backward",
        ("compiled", "compiled direct", "eager", "diffrax direct", "diffrax recursive", "field"),
        (
            Bar("compiled direct", "direct <= 1.0 of diffrax jit", (("diffrax", 1.0),)),
            Bar("compiled", "recompute <= 1.3 of diffrax jit", (("diffrax", 1.3),)),
        ),
        repeats=41,
    ),
)
"""Every workload of the plan."""
