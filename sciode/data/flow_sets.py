"""Flow sets by name: made on this machine at the first call, then read from the cache."""

from __future__ import annotations

from .flow import FlowSet
from .flow_files import read_flows
from .registry import manifest, manifests
from .store import get

__all__ = ["flows"]


def flows(name: str, part: str = "train", progress: bool = False) -> FlowSet:
    """One part of a flow set, "train", "validation" or "test", by the name that `sciode data list` prints.

    A set is simulated at the first call, by the recipe in its manifest and with its seeds, and kept in the cache with
    the recipe; where the manifest's recipe has changed since, it is made anew. Names that end in _reduced are small
    sets of the same kind, a minute or two on two cores; what the others take stands in their manifest's note.

    Raises ValueError for another name or part, and what `sciode.data.get` raises.
    """
    wanted = manifest(name)
    if wanted.kind != "flow":
        known = [other for other, found in manifests().items() if found.kind == "flow"]
        raise ValueError(f"{wanted.name} is a set of kind {wanted.kind!r}, not of flows: those are {', '.join(known)}")
    return read_flows(get(wanted.name, progress), part)
