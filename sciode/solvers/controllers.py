"""Step-size control: pure functions from (error, memory) to (accept, next step)."""

from __future__ import annotations

from dataclasses import dataclass

from .books import Book, namespace

__all__ = ["PID", "Fixed"]


@dataclass(frozen=True)
class Fixed:
    """Steps of `dt`, counted by integers: t_n = t0 + n dt, the last one shortened to end at the last time."""

    dt: float

    def __post_init__(self) -> None:
        if not 0 < self.dt < float("inf"):
            raise ValueError(f"dt: expected a positive number, got {self.dt}; backward time follows from decreasing ts")


@dataclass(frozen=True)
class PID:
    """factor = safety * d_n^((p+i+d)/k) * d_{n-1}^(-(p+2d)/k) * d_{n-2}^(d/k), with d = 1 / (scaled error).

    k is the method's error order; the next step is factor * dt, with factor clipped to [1, factormax] after an accepted
    step and to [factormin, safety] after a rejected one. A NaN error counts as infinite. No gradient flows through step
    sizes. (diffrax's parametrisation.)

    Good values: the default (an I controller) for ODEs; pcoeff=0.2..0.4, icoeff=0.3..0.4 where the step size chatters
    (mildly stiff problems); pcoeff=0.1, icoeff=0.3, factormax=5 for SDEs (what `solve` takes), whose errors are random
    and would make an I controller jump; dtmax to keep a solver from stepping over a short pulse.

    Arguments:
        first_step: the first trial step; None = Hairer's heuristic (one extra evaluation).
        dtmin: a sample that would need a smaller step ends with status DT_MIN; with `force_dtmin` it steps on at dtmin.
        revisit: whether later steps end at the times at which rejected ones would have ended; None = where the noise is
            "general". A step that is rejected because of what the path does later biases the choice of the times at
            which the path is seen, and where noise does not commute the solution with it; seen again, they do not. The
            12 nearest times are kept; more rejections than that in a row forget the farthest ones.

    Source: Hairer, Wanner: Solving ODEs II (1996), section IV.2; Soederlind: Digital filters in adaptive time-stepping
    (ACM TOMS 29, 2003); Foster, Jelincic: On the convergence of adaptive approximations for SDEs (2023) for revisiting.
    """

    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    factormin: float = 0.2
    factormax: float = 10.0
    safety: float = 0.9
    dtmin: float | None = None
    dtmax: float | None = None
    force_dtmin: bool = False
    first_step: float | None = None
    revisit: bool | None = None

    def __post_init__(self) -> None:
        if not (0 < self.factormin < 1 < self.factormax and 0 < self.safety <= 1):
            raise ValueError("PID: expected 0 < factormin < 1 < factormax and 0 < safety <= 1")
        for name in ("dtmin", "dtmax", "first_step"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(
                    f"PID: {name} must be positive, got {value}; steps are lengths, whatever time's direction"
                )
        if self.dtmin is not None and self.dtmax is not None and self.dtmin > self.dtmax:
            raise ValueError(f"PID: dtmin={self.dtmin} exceeds dtmax={self.dtmax}")
        if self.force_dtmin and self.dtmin is None:
            raise ValueError("PID: force_dtmin=True needs dtmin=")

    def start(self, like: Book) -> tuple[Book, ...]:
        """Inverse errors of the last two accepted steps (1 before there are any); empty for an I controller."""
        if self.pcoeff == 0 and self.dcoeff == 0:
            return ()
        ones = namespace(like).ones_like(like)
        return (ones, ones) if self.dcoeff else (ones,)

    def next(self, ratio: Book, memory: tuple[Book, ...], order: float) -> tuple[Book, Book, tuple[Book, ...]]:
        """(accept, factor, memory if accepted) for a scaled error [L] of this step; NaN must be given as inf."""
        xp = namespace(ratio)
        p, i, d = self.pcoeff, self.icoeff, self.dcoeff
        accept = ratio <= 1
        # Below this the factor is beyond factormax anyway, and 0 has no negative power.
        ratio = xp.clip(ratio, 1e-30, None)
        factor = ratio ** (-(p + i + d) / order) * self.safety
        new: tuple[Book, ...] = ()
        if memory:
            factor = factor * memory[0] ** (-(p + 2 * d) / order)
            if d:
                factor = factor * memory[1] ** (d / order)
            inverse = 1 / xp.clip(ratio, 1e-12, None)
            new = (inverse, memory[0]) if d else (inverse,)
        grow = xp.clip(factor, 1.0, self.factormax)
        shrink = xp.clip(factor, self.factormin, self.safety)
        return accept, xp.where(accept, grow, shrink), new
