"""Editing of data by a model that was trained on its like: SDEdit, CODE, RePaint, regions, and shared features."""

from sciode.diffusion.editing.features import FeatureSharing
from sciode.diffusion.editing.regions import Region, RegionalNoise, TimeTravel, edit_regions
from sciode.diffusion.editing.repaint import repaint
from sciode.diffusion.editing.score_ascent import code
from sciode.diffusion.editing.sdedit import sdedit

__all__ = [
    "FeatureSharing",
    "Region",
    "RegionalNoise",
    "TimeTravel",
    "code",
    "edit_regions",
    "repaint",
    "sdedit",
]
