"""What a pure step must not do, seen while it runs: write in place, wait for the device, draw random numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Impurity", "Purity"]


class Impurity(NamedTuple):
    """An operation (`aten.add_.Tensor`) and what is wrong with it ("writes in place", "waits for the device", ...)."""

    operation: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.operation} {self.complaint}"


class Purity(TorchDispatchMode):
    """Context that records impure operations in `found`: `with Purity() as seen: step(...)`.

    Seen are writes to an argument (`add_`, `out=`), reads whose result or shape depends on values (`.item()`, `bool()`,
    `torch.equal`, `nonzero`, a mask as index), and draws from torch's global stream. It does not see `.tolist()` and
    `.numpy()` on the CPU, which pass by the dispatcher; tracing does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Impurity] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation, then do it."""
        complaint = _complaint(func, args)
        if complaint:
            self.found.append(Impurity(str(func), complaint))
        return func(*args, **(kwargs or {}))


def _complaint(func: Any, args: tuple[Any, ...]) -> str:
    if any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments):
        return "writes in place"
    if torch.Tag.nondeterministic_seeded in func.tags:
        return "draws from the global random stream"
    if func is torch.ops.aten.index.Tensor:
        masks = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        return "waits for the device" if masks else ""
    reads = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
    return "waits for the device" if reads else ""
