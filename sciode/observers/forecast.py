"""What a trained network answers for any place and time, from what sensors read at one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.data.flow import Space

from .bounds import Bounds
from .gaps import filled
from .model import ObserverModel, Simulated
from .scene import Scene
from .windows import Layout, Scale
from .wiring import Joined, Wiring, gathered

__all__ = ["Forecast"]


class Forecast(NamedTuple):
    """A network and what it was trained with: scale and range of readings, how sensors are joined, the space as the
    network sees it, and clock [K], the usual anchor times of a window, in steps."""

    network: ObserverModel
    scale: Scale
    bounds: Bounds
    wiring: Wiring
    space: Space
    clock: Tensor

    @property
    def device(self) -> torch.device:
        """The network's."""
        return next(self.network.parameters()).device

    @property
    def beat(self) -> float:
        """The mean distance of the usual anchor times, in steps."""
        return float(self.clock[-1]) / (len(self.clock) - 1)

    def joined(self, layout: Layout) -> Joined:
        """All sensors of a layout, joined."""
        return self.wiring.joined(layout, torch.arange(len(layout.points)), self.space, self.device)

    def scene(self, part: Joined, values: Tensor, count: int) -> Scene:
        """Of joined sensors that read values [N, c], and `count` anchor times: the usual ones, and after them even
        ones."""
        readings = self.scale.standardised(values).to(self.device)
        (readings,) = filled(readings.unsqueeze(0), part, self.wiring, self.space)
        later = self.clock[-1] + self.beat * torch.arange(1, count + 1)
        clock = torch.cat((self.clock, later))[:count].to(self.device).unsqueeze(0)
        return gathered([part], [readings], clock, self.space)

    def answer(
        self, part: Joined, values: Tensor, places: Tensor, steps: NDArray[Any], chunk: int
    ) -> tuple[NDArray[np.float64], float]:
        """Values [T, Q, c] at places [Q, d] and times in steps from the reading on, some `chunk` queries at a time, and
        the first anchor time at which what is foreseen of a sensor has left the training's range, infinite where there
        is none."""
        # Readers of all anchor times expect the training's, however early the query; not those of later ones.
        late = np.maximum(steps - float(self.clock[-1]), 0.0) / self.beat
        counts = np.ceil(late - 1e-9).astype(int) + len(self.clock)
        seen = self.scene(part, values, int(counts.max()))
        found = np.empty((len(steps), len(places), len(self.scale.mean)))
        x = places.to(self.device)
        with torch.no_grad():
            simulated = self.network.simulated(seen)
            # Place by place: what the base says of one is made once, for all times.
            for first in range(0, len(x), chunk):
                here = slice(first, first + chunk)
                based = self.network.based(simulated, seen, x[None, here])
                for count in np.unique(counts):
                    found[counts == count, here] = self._at(
                        simulated.until(count), seen._replace(clock=seen.clock[:, :count]), x[here],
                        steps[counts == count], None if based is None else based[:, :, :count], chunk,
                    )  # fmt: skip
        lost = self.left(self.scale.restored(simulated.told[0])).any(1).cpu()
        return found, float(seen.clock[0].cpu()[lost].min()) if bool(lost.any()) else np.inf

    def left(self, values: Tensor) -> Tensor:
        """Which values have left the training's range; see `Bounds.left`."""
        return self.bounds.left(values, self.scale.deviation)

    def _at(
        self, known: Simulated, scene: Scene, x: Tensor, steps: NDArray[Any], based: Tensor | None, chunk: int
    ) -> NDArray[np.float64]:
        """Values [T, Q, c] at places x [Q, d] and all times."""
        found = []
        for part in torch.as_tensor(steps, dtype=torch.float64, device=x.device).split(max(chunk // len(x), 1)):
            t, queries = part.repeat_interleave(len(x))[None], x.repeat(len(part), 1)[None]
            base = None if based is None else based.repeat(1, len(part), 1, 1)
            found.append(self.network.asked(known, scene, queries, t, base)[0].unflatten(0, (len(part), len(x))))
        return self.scale.restored(torch.cat(found)).cpu().numpy()
