"""Zero mean and unit variance for each channel, learnt from what was observed in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .series import IrregularSeries

_LARGEST = 1e18  # its square is still a number in single precision, in which models compute


@dataclass(frozen=True)
class Standardizer:
    """x -> (x - mean) / scale for each channel; mean and scale are those of the observed training readings.

    Missing readings count for nothing and stay NaN. A channel that does not vary (standard deviation below 1e-12 of
    its size) has scale 1, so it becomes 0 and not noise; a channel never observed has mean 0 and scale 1.

    Args:
        mean: [channels], in the unit of the channel.
        scale: [channels], positive, in the unit of the channel.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale) or not self.mean:
            raise ValueError(
                f"mean has {len(self.mean)} entries and scale {len(self.scale)}: give one for each channel"
            )
        if not np.isfinite(self.mean).all() or not (np.isfinite(self.scale).all() and min(self.scale) > 0):
            raise ValueError("mean must be finite and scale finite and positive")

    @classmethod
    def fit(cls, series: IrregularSeries) -> Standardizer:
        """Learn mean and scale (population standard deviation) from the TRAINING series only.

        Raises ValueError for readings whose squares overflow.
        """
        readings = np.concatenate([np.asarray(v, dtype=np.float64) for v in series.values])
        observed = ~np.isnan(readings)
        size = np.where(observed, np.abs(readings), 0.0).max(axis=0)
        if size.max() > 1e150:
            raise ValueError(
                f"channel {int(size.argmax())} has a reading of size {size.max():g}, whose square overflows: write NaN "
                "if it is a mark for a missing reading, else choose a larger unit"
            )
        count = np.maximum(observed.sum(axis=0), 1)
        mean = np.where(observed, readings, 0.0).sum(axis=0) / count
        deviation = np.where(observed, readings - mean, 0.0)
        scale = np.sqrt((deviation**2).sum(axis=0) / count)
        scale = np.where(scale > 1e-12 * size, scale, 1.0)
        return cls(tuple(mean.tolist()), tuple(scale.tolist()))

    def transform(self, series: IrregularSeries) -> IrregularSeries:
        """Standardised series, same clocks and dtype.

        Raises ValueError if the number of channels is another, or for readings over 1e18 scales from the mean.
        """
        self._check(series)
        standard = [(np.asarray(v, dtype=np.float64) - self.mean) / self.scale for v in series.values]
        for number, value in enumerate(standard):
            wild = np.abs(value) > _LARGEST
            if wild.any():
                row, channel = np.argwhere(wild)[0]
                raise ValueError(
                    f"series {number} reads {series.values[number][row, channel]:g} in channel {channel}, which has "
                    f"mean {self.mean[channel]:g} and standard deviation {self.scale[channel]:g} in training: write "
                    "NaN if it is a mark for a missing reading, else mend it"
                )
        return series.replace_values([z.astype(v.dtype) for z, v in zip(standard, series.values, strict=True)])

    def inverse(self, series: IrregularSeries) -> IrregularSeries:
        """Back to the units of the data: x = z * scale + mean."""
        self._check(series)
        return series.replace_values([(v * self.scale + self.mean).astype(v.dtype) for v in series.values])

    def _check(self, series: IrregularSeries) -> None:
        if series.channels != len(self.mean):
            raise ValueError(
                f"the series have {series.channels} channels and the training series had {len(self.mean)}: "
                "give the same channels in the same order"
            )

    def to_dict(self) -> dict[str, list[float]]:
        """Plain floats, ready for JSON."""
        return {"mean": list(self.mean), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Sequence[float]]) -> Standardizer:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(float(m) for m in saved["mean"]), tuple(float(s) for s in saved["scale"]))
