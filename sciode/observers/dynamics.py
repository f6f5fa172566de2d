"""System 1: the state of the sensors in a latent space, stepped or as a graph neural ODE."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciode.nn import mlp
from sciode.solvers import solve
from sciode.solvers.suggest import choose

from .message_passing import Interaction
from .scene import Scene, embedded
from .waves import Exchange

__all__ = ["FORMS", "SOLVER", "STATES", "LatentDynamics", "Latents"]

FORMS = ("steps", "ode")
STATES = ("values", "latent")
SOLVER: Mapping[str, Any] = MappingProxyType({"method": "bosh3", "rtol": 1e-3, "atol": 1e-3, "engine": "eager"})
"""How the graph neural ODE is solved unless said otherwise: eager, for every batch brings a graph of its own."""


_SETTABLE = tuple(set(signature(solve).parameters) - {"field", "y0", "ts", "args", "batch_dims", "regularize", "throw"})
"""What of `solve` is left to say."""


class Latents(NamedTuple):
    """states: [B, K, N, width] at the clock's times, as the layers read them. told: [B, K, N, c], what the sensors are
    said to read then. penalties: name -> [B], of `regularize`. nfe: [B], evaluations of the field; a step counts as
    one."""

    states: Tensor
    told: Tensor
    penalties: dict[str, Tensor]
    nfe: Tensor


class LatentDynamics(nn.Module):
    """z_{k+1} = z_k + (t_{k+1} - t_k) F(z_k, graph), or dz/dt = F(z, graph), from z_0 = encoder(first readings).

    F is `layers` residual `Interaction`s; it returns the sum of what they add. "steps" is the paper's discrete form,
    one step from anchor time to anchor time, and Euler's method for "ode"; unequal times scale its step. Edges begin
    every step as what geometry says: sensors do not move.

    state: "latent", as the paper has it: what sensors read is decoded from z alone. "values": their values s go beside
    z; the layers read u = z + A s, and move both: with v what they make of u, dz/dt = v - u and ds/dt = head(v). The
    forecast begins at what was read, and errors reach every step without a decoder between: with waves it is learnt
    faster, without them it is no gain. A sensor that did not read begins at an affine guess from z. An "ode" is then
    solved in values and z together: its tolerances hold for both, and `regularize` counts both.
    form: "steps" or "ode". places: "absolute": nodes and edges know where they are (flows with forces or walls of
    their own need it); "relative": only what moves with the points, the way between neighbours, on a sphere its length
    alone: F is then equivariant under translations of a periodic box and rotations of a sphere. solver: options of
    `sciode.solve`. waves: before each layer, sensors hear of each other by so many waves (`Exchange`); 0: by edges
    alone, as the paper has it, which carries news a few neighbours a step. mixing: see `Exchange`.

    Raises ValueError for an unknown form, state or places. Source: Janny, Nadri, Digne, Wolf: Space and time continuous
    physics simulation from partial observations (ICLR 2024), from the formulas.
    """

    def __init__(
        self,
        channels: int,
        dimension: int,
        width: int = 128,
        layers: int = 4,
        *,
        form: Literal["steps", "ode"] = "steps",
        places: Literal["absolute", "relative"] = "absolute",
        embedding: int | None = None,
        solver: Mapping[str, Any] = SOLVER,
        regularize: Any = (),
        waves: int = 0,
        state: Literal["values", "latent"] = "values",
        mixing: Literal["full", "each"] = "full",
    ) -> None:
        super().__init__()
        choose("form", form, FORMS)
        choose("places", places, ("absolute", "relative"))
        choose("state", state, STATES)
        if min(channels, dimension, width, layers) < 1:
            raise ValueError("channels, dimension, width and layers must be >= 1")
        if regularize and form == "steps":
            raise ValueError('regularize: steps have no solver whose work could be regularized; take form="ode"')
        for name in solver:
            choose("solver", name, _SETTABLE)
        self.form, self.absolute, self.channels = form, places == "absolute", channels
        self.solver, self.regularize = dict(solver), regularize
        self.dimension = dimension
        where = (dimension if embedding is None else embedding) if self.absolute else 0
        self.encoder = mlp([2 * channels + 1 + where, width, width, width])
        self.edges = mlp([2 * where + dimension + 1, width, width, width])
        self.layers = nn.ModuleList([Interaction(width) for _ in range(layers)])
        self.far = nn.ModuleList([Exchange(width, waves, mixing) for _ in range(layers)] if waves else [])
        self.lift = nn.Linear(channels, width, bias=False) if state == "values" else None
        self.guess = nn.Linear(width, channels) if state == "values" else None
        self.head = mlp([width] * 3 + [channels], nn.SiLU) if state == "latent" else mlp([width, width, channels])
        self._calm()

    def _calm(self) -> None:
        """Begin near the identity: sums over neighbours, layers and steps would multiply to large numbers."""
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, Interaction)
                for last in (layer.edge_out, layer.node[-1]):
                    for parameter in last.parameters():
                        parameter.mul_(0.1)

    def encoded(self, scene: Scene) -> Tensor:
        """z_0 [B, N, width] of the first readings."""
        parts = [scene.start, scene.read.to(scene.start), scene.walls.to(scene.start).unsqueeze(-1)]
        if self.absolute:
            parts.append(embedded(scene.points, scene.space))
        return self.encoder(torch.cat(parts, -1)) * scene.there.unsqueeze(-1)

    def edge_states(self, scene: Scene) -> Tensor:
        """What geometry says of each edge, [E, width]; lengths are in units of the sensors' spacing."""
        points = scene.points.flatten(0, 1)
        sender, receiver = points[scene.edges[0]], points[scene.edges[1]]
        near = scene.near[scene.edges[0] // scene.points.shape[1]].unsqueeze(-1)
        way = scene.space.difference(sender, receiver) / near
        square = way.square().sum(-1, keepdim=True)
        if scene.space.kind == "sphere" and not self.absolute:
            way = torch.zeros_like(way)
        parts = [embedded(x, scene.space) for x in (sender, receiver)] if self.absolute else []
        return self.edges(torch.cat((*parts, way, square), -1))

    def passed(self, u: Tensor, e: Tensor, scene: Scene) -> Tensor:
        """What the layers make of u [B, N, width] and edge states e, [B, N, width]."""
        v = u.flatten(0, 1)
        for number, layer in enumerate(self.layers):
            if self.far:
                assert scene.span.waves is not None
                heard = self.far[number](v.unflatten(0, u.shape[:2]), scene.span.waves, scene.span.projection)
                v = v + heard.flatten(0, 1)
            dv, de = layer(v, e, scene.edges)
            v, e = v + dv, e + de
        return v.unflatten(0, u.shape[:2])

    def rate(self, z: Tensor, e: Tensor, scene: Scene) -> Tensor:
        """F(z, graph) [B, N, width] of edge states e; 0 where there is no sensor."""
        return (self.passed(z, e, scene) - z) * scene.there.unsqueeze(-1)

    def forward(self, scene: Scene) -> Latents:
        """States at the clock's times."""
        z, e = self.encoded(scene), self.edge_states(scene)
        y = z
        if self.guess is not None:
            begin = torch.where(scene.read, scene.start, self.guess(z)) * scene.there.unsqueeze(-1)
            y = torch.cat((begin, z), -1)
        if self.form == "ode" and scene.clock.shape[1] > 1:
            return self._solved(y, e, scene)
        found, gaps = [y], scene.clock.diff(dim=1).to(z.dtype)
        for k in range(gaps.shape[1]):
            y = y + gaps[:, k, None, None] * self._slope(y, e, scene)
            found.append(y)
        nfe = torch.full((len(z),), gaps.shape[1], dtype=torch.int64, device=z.device)
        return self._read(torch.stack(found, 1), {}, nfe)

    def _slope(self, y: Tensor, e: Tensor, scene: Scene) -> Tensor:
        """Of all that moves: z, or values and z in a row."""
        if self.lift is None:
            return self.rate(y, e, scene)
        u = y[..., self.channels :] + self.lift(y[..., : self.channels])
        v = self.passed(u, e, scene)
        return torch.cat((self.head(v), v - u), -1) * scene.there.unsqueeze(-1)

    def _read(self, found: Tensor, penalties: dict[str, Tensor], nfe: Tensor) -> Latents:
        if self.lift is None:
            return Latents(found, self.head(found), penalties, nfe)
        values = found[..., : self.channels]
        return Latents(found[..., self.channels :] + self.lift(values), values, penalties, nfe)

    def _solved(self, y: Tensor, e: Tensor, scene: Scene) -> Latents:
        # Flows do not meet on the graph, so each has a step size of its own.
        found = solve(
            lambda t, y, args: self._slope(y, args, scene), y, scene.clock.T.contiguous(), args=e, batch_dims=1,
            regularize=self.regularize, throw=False, **self.solver,
        )  # fmt: skip
        return self._read(found.ys.transpose(0, 1), found.penalties, found.stats.nfe)
