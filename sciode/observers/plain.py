"""Parameters as Python's own numbers, which a JSON header can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

__all__ = ["plain_fields"]


def plain_fields(record: Any) -> None:
    """Make NumPy's scalars among the fields of a dataclass, frozen or not, Python's, those in mappings and tuples too,
    and devices their names.

    Files that were trained for would otherwise not be written: JSON knows no int64.
    """
    for one in fields(record):
        object.__setattr__(record, one.name, _plain(getattr(record, one.name)))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if type(value) is tuple:
        return tuple(_plain(part) for part in value)
    return value
