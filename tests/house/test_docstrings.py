"""Everything public, that is reachable through an `__all__`, has a docstring of its own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from types import ModuleType

import sciode


def _modules() -> list[ModuleType]:
    names = ["sciode", *(found.name for found in pkgutil.walk_packages(sciode.__path__, "sciode."))]
    return [importlib.import_module(name) for name in names if name != "sciode.__main__"]


def _missing(name: str, value: object) -> list[str]:
    """Return the public functions, classes and their methods below `value` that have no docstring."""
    if not (inspect.isclass(value) or inspect.isfunction(value)) or not value.__module__.startswith("sciode"):
        return []
    missing = [] if _own_docstring(value) else [name]
    if inspect.isclass(value):
        for member, found in vars(value).items():
            if isinstance(found, property):
                found = found.fget
            found = getattr(found, "__func__", found)
            overrides = any(hasattr(base, member) for base in value.__mro__[1:])
            if not member.startswith("_") and inspect.isfunction(found) and not overrides and not found.__doc__:
                missing.append(f"{name}.{member}")
    return missing


def _own_docstring(value: object) -> bool:
    text = getattr(value, "__doc__", None) or ""
    # What dataclass and NamedTuple write themselves says nothing a reader didn't see.
    generated = text.startswith((f"{getattr(value, '__name__', '')}(", "Create new instance"))
    return bool(text.strip()) and not generated


def test_every_module_says_what_it_is() -> None:
    assert [module.__name__ for module in _modules() if not (module.__doc__ or "").strip()] == []


def test_everything_public_has_a_docstring() -> None:
    public = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in _modules()
        for name in getattr(module, "__all__", ())
    }
    assert public
    assert [gap for name, value in public.items() for gap in _missing(name, value)] == []


def test_a_missing_docstring_is_seen() -> None:
    @dataclass
    class Bare:
        x: int

        def method(self) -> None: ...

    class Told:
        """Says what it is."""

        @property
        def size(self) -> int:
            return 1

    Bare.__module__ = Told.__module__ = "sciode.example"
    assert _missing("Bare", Bare) == ["Bare", "Bare.method"]
    assert _missing("Told", Told) == ["Told.size"]
    assert _missing("torch.nn.Linear", int) == []
