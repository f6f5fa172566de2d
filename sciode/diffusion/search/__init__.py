"""Solver search: predictor-based multi-stage search over recipes, the unified sampling framework."""

from sciode.diffusion.search.space import Space
from sciode.diffusion.search.stages import Found, Search, paired_error, search

__all__ = ["Found", "Search", "Space", "paired_error", "search"]
