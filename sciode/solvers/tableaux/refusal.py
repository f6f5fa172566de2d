"""How a table that is wrong refuses to exist."""

from __future__ import annotations

import re

__all__ = ["require", "require_claims"]


def require(condition: bool, name: str, message: str) -> None:
    """ValueError that names the table unless the condition holds."""
    if not condition:
        raise ValueError(f"tableau {name!r}: {message}")


def require_claims(name: str, order: int) -> None:
    """Hold a table's name and order to the house's form."""
    plain = re.fullmatch("[a-z][a-z0-9]*", name) is not None
    require(plain, name, "name it in lower-case letters and digits only")
    require(order >= 1, name, f"order is {order}; a method must have order 1 at least")
