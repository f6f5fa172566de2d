"""For notebooks and experiments: set-up, fast mode, progress and tables here; `sciode.lab.plots` needs matplotlib."""

from sciode.lab.progress import progress
from sciode.lab.setup import Session, fast, scale, setup

__all__ = ["Session", "fast", "progress", "scale", "setup"]
