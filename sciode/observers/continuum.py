"""System 2: the flow at any place and time, from the latent states of the sensors at the anchor times."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sciode.data.flow import Space
from sciode.nn import mlp
from sciode.solvers.suggest import choose

from .attention import SensorAttention
from .scene import Scene, embedded

__all__ = ["READERS", "Continuum", "Fourier"]

READERS = ("gru", "mean", "max")


class Fourier(nn.Module):
    """gamma(x, t): sines and cosines of w_j i u_j, i = 1 .. modes, of each coordinate u_j, and the affine map of all.

    u is `embedded` x, so that the code has neither seams nor poles, and t in units of the horizon. w is learned, from
    pi / 2 on. Maps x [..., d] and t [...] to [..., width].
    """

    def __init__(self, coordinates: int, width: int, modes: int = 2) -> None:
        super().__init__()
        if modes < 1:
            raise ValueError(f"modes must be >= 1, got {modes}")
        self.frequencies = nn.Parameter(torch.full((coordinates + 1,), torch.pi / 2))
        self.modes = modes
        self.mix = nn.Linear((coordinates + 1) * (2 * modes + 1), width)

    def forward(self, x: Tensor, t: Tensor, space: Space) -> Tensor:
        """The code of places x at times t."""
        u = torch.cat((embedded(x, space), t.to(x).unsqueeze(-1)), -1)
        whole = torch.arange(1, self.modes + 1, device=x.device, dtype=u.dtype)
        angle = (self.frequencies * u).unsqueeze(-1) * whole
        return self.mix(torch.cat((u, angle.sin().flatten(-2), angle.cos().flatten(-2)), -1))


class Continuum(nn.Module):
    """s(x, t) from z(x_i, t_k): attention of q = gamma(x, t) to z(x_i, t_k) + gamma(x_i, t_k) at each anchor time,
    residual layers, a GRU that reads the anchor times in order, a decoder.

    causal: a query reads the anchor times t_k <= t alone; False: all of them, as the paper has it. reader: "gru", or
    "mean", "max" over the anchor times that are read, its ablations. horizon: the unit of t, in steps. attention, k:
    see `SensorAttention`. corrects: what is decoded is added to a value that the decoder hears of too.

    Raises ValueError for an unknown reader.

    Source: Janny, Nadri, Digne, Wolf (ICLR 2024), from the formulas; the term of distance in the attention is ours.
    """

    def __init__(
        self,
        channels: int,
        coordinates: int,
        width: int = 128,
        *,
        heads: int = 4,
        attention: Literal["dense", "nearest", "linear"] = "dense",
        k: int = 16,
        reader: Literal["gru", "mean", "max"] = "gru",
        depth: int = 2,
        causal: bool = False,
        horizon: float = 20.0,
        modes: int = 2,
        corrects: bool = False,
    ) -> None:
        super().__init__()
        choose("reader", reader, READERS)
        if not horizon > 0:
            raise ValueError(f"horizon must be > 0, got {horizon}")
        self.causal, self.reader, self.horizon = causal, reader, horizon
        self.code = Fourier(coordinates, width, modes)
        self.attend = SensorAttention(width, heads, way=attention, k=k)
        self.refine = mlp([width, width, width])
        self.memory = nn.GRU(width, width, num_layers=depth, batch_first=True) if reader == "gru" else None
        self.decode = mlp([width + channels * corrects, width, width, channels], nn.SiLU)
        if corrects:
            with torch.no_grad():  # begins near the value that it corrects
                for parameter in self.decode[-1].parameters():
                    parameter.mul_(0.1)

    def forward(self, states: Tensor, scene: Scene, x: Tensor, t: Tensor, base: Tensor | None = None) -> Tensor:
        """states [B, K, N, width] at the scene's clock, queries x [B, Q, d] at t [B, Q] float64 -> [B, Q, c].

        base: [B, Q, c], what is corrected, of a continuum that `corrects`.
        """
        k, n = states.shape[1:3]
        clock = (scene.clock / self.horizon).to(states.dtype)
        where = scene.points.unsqueeze(1).expand(-1, k, -1, -1)
        known = states + self.code(where, clock.unsqueeze(-1).expand(-1, -1, n), scene.space)
        q = self.code(x, (t / self.horizon).to(states.dtype), scene.space)
        o = self.attend(q, known, x, scene.points, scene.there, scene.near, scene.space) + q.unsqueeze(1)
        o = (o + self.refine(o)).transpose(1, 2)  # [B, Q, K, width]
        read = self._read(o, scene.clock, t)
        return self.decode(read) if base is None else base + self.decode(torch.cat((read, base), -1))

    def _read(self, o: Tensor, clock: Tensor, t: Tensor) -> Tensor:
        """One state of [B, Q, K, width] a query: of the anchor times that it may read."""
        if self.causal:
            # Rounding of times must not move an anchor time into the future of a query at it.
            open_ = clock.unsqueeze(1) <= t.unsqueeze(2) + 1e-9
        else:
            open_ = torch.ones(o.shape[:3], dtype=torch.bool, device=o.device)
        last = (open_.sum(-1) - 1).clamp(min=0)
        if self.memory is not None:
            read = self.memory(o.flatten(0, 1))[0].unflatten(0, o.shape[:2])
            return read.gather(2, last[..., None, None].expand(-1, -1, 1, read.shape[-1])).squeeze(2)
        open_ = (open_ | (torch.arange(o.shape[2], device=o.device) == 0)).unsqueeze(-1)
        if self.reader == "mean":
            return torch.where(open_, o, 0.0).sum(2) / open_.sum(2)
        return torch.where(open_, o, -torch.inf).amax(2)
