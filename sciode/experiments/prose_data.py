"""What `sciode train prose` trains on: how many trajectories are kept, how fast they come, whether they are right.

    sciode train prose_data
    sciode train prose_data --set equations=1707 starts=20 engine=kernel --device cuda    # 512,100 trajectories

Rows: one a system. A share of what is drawn is solved again by SciPy's LSODA (`sciode.prose.agreement`): relative L2
deviations up to each trajectory's horizon, the time from which on LSODA at the drawing's own tolerances is 1 % off.
"sets": different sets of numbers in the part that is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.lab.tables import show, table
from sciode.prose import SYSTEMS, Drawing, draw
from sciode.prose.agreement import agreement
from sciode.training import choose_device

__all__ = ["Settings", "made", "main"]


@dataclass(frozen=True)
class Settings:
    """systems: () for all fifteen. equations, starts, part, engine: of `Drawing`. share: compared with LSODA, at
    tolerance `rtol`. Raises ValueError for unknown systems or sizes below one."""

    systems: tuple[str, ...] = ()
    equations: int = 200
    starts: int = 20
    part: str = "train"
    engine: str = "auto"
    share: float = 0.01
    rtol: float = 1e-9
    seed: int = 0
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("systems", self.systems, SYSTEMS)
        if not 0 < self.share <= 1 or self.workers < 1:
            raise ValueError(f"share must lie in (0, 1] and workers be at least 1, got {self}")


def made(settings: Settings, system: str) -> dict[str, Any]:
    """The row of a system."""
    how = Drawing((system,), settings.equations, settings.starts, part=settings.part, engine=settings.engine)
    began = time.perf_counter()
    (samples,) = draw(how, settings.seed, settings.device)
    samples.values.sum().item()
    seconds = time.perf_counter() - began
    found = agreement(samples, how, settings.share, settings.rtol)._asdict()
    sets = len(set(samples.equations))
    return {"kept": len(samples.values), "left_out": samples.left_out, "sets": sets, "draw_seconds": seconds, **found}


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl, which resumes, and table.json. Returns 0."""
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [{"system": name} for name in settings.systems or SYSTEMS]
    rows = finished_rows(out, keys, stamped(settings, "systems"), partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    show(_table(settings, rows))
    print(f"numbers: {numbers}")
    return 0


def _table(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    names = ("system", "kept", "left_out", "sets", "draw_seconds", "compared", "median", "worst", "horizon", "whole",
             "all_times")  # fmt: skip
    cells = [[row[name] for name in names] for row in rows]
    caption = f"deviations from LSODA at {settings.rtol:g}; {settings.device}, part {settings.part}"
    return table("Trajectories", names, cells, caption)
