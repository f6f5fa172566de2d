"""What the rows of `sciode train uea` come to: means over sets, falls, wins and ties, a table and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from sciode.lab.figures import picture
from sciode.lab.tables import table

__all__ = ["RIVALS", "accuracy_tables", "curves", "summary"]

RIVALS = ("ncde", "nsde")
"""The models that the others are counted against."""

Row = Mapping[str, Any]


def summary(
    rows: Sequence[Row], tuning: Sequence[Row], blocks: Mapping[str, Sequence[str]], rates: Sequence[float]
) -> list[dict[str, Any]]:
    """One entry for each block of sets, way of dropping and model, over the sets of which the block has rows.

    accuracy: rate -> mean over the sets; spread: rate -> standard deviation over the seeds of that mean; fall: from the
    lowest rate to the highest; against: rival -> [wins, ties, cells], cells being (set, rate), compared by the mean
    over the seeds. seconds: of training, those of the trials apart; nfe: a series. "sets": set -> rate -> mean.
    """
    found = []
    names = [f"{rate:g}" for rate in sorted(rates)]
    for block, members in blocks.items():
        inside = [row for row in rows if row["set"] in members]
        for mechanic in dict.fromkeys(row["mechanic"] for row in inside):
            mine = [row for row in inside if row["mechanic"] == mechanic]
            for model in dict.fromkeys(row["model"] for row in mine):
                own = {row["set"]: row for row in mine if row["model"] == model}
                tried = sum(t["seconds"] for t in tuning if t["model"] == model and t["set"] in own)
                entry = {"block": block, "mechanic": mechanic, "model": model, "tuning_seconds": tried}
                found.append({**entry, **_entry(own, mine, names)})
    return found


def _entry(own: Mapping[str, Row], mine: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    means = {name: fmean(fmean(row["accuracy"][name]) for row in own.values()) for name in names}
    return {
        "accuracy": means,
        "spread": {name: _spread([row["accuracy"][name] for row in own.values()]) for name in names},
        "fall": means[names[0]] - means[names[-1]],
        "against": {rival: _against(own, mine, rival, names) for rival in RIVALS},
        "seconds": sum(row["train_seconds"] for row in own.values()),
        "compile_seconds": sum(row["compile_seconds"] for row in own.values()),
        "nfe": fmean(row["nfe"] for row in own.values()),
        "diverged": sum(row["diverged"] for row in own.values()),
        "sets": {name: {rate: fmean(row["accuracy"][rate]) for rate in names} for name, row in own.items()},
    }


def _spread(accuracies: Sequence[Sequence[float]]) -> float:
    """Standard deviation over seeds of the mean over sets."""
    by_seed = [fmean(seed) for seed in zip(*accuracies, strict=True)]
    return stdev(by_seed) if len(by_seed) > 1 else 0.0


def _against(own: Mapping[str, Row], mine: Sequence[Row], rival: str, names: Sequence[str]) -> list[int] | None:
    """[wins, ties, cells]; None against itself or one that is not there."""
    others = {row["set"]: row for row in mine if row["model"] == rival}
    if not others or any(row["model"] == rival for row in own.values()):
        return None
    gaps = [
        round(fmean(row["accuracy"][name]) - fmean(others[set]["accuracy"][name]), 9)
        for set, row in own.items()
        if set in others
        for name in names
    ]
    return [sum(gap > 0 for gap in gaps), sum(gap == 0 for gap in gaps), len(gaps)]


def accuracy_tables(found: Sequence[Mapping[str, Any]], settings: Any) -> list[Table]:
    """A table for each block and way of dropping."""
    tables = []
    for block, mechanic in dict.fromkeys((entry["block"], entry["mechanic"]) for entry in found):
        entries = [entry for entry in found if (entry["block"], entry["mechanic"]) == (block, mechanic)]
        rates, sets = list(entries[0]["accuracy"]), list(entries[0]["sets"])
        lines = [
            [
                entry["model"],
                *(f"{entry['accuracy'][rate]:.3f} ± {entry['spread'][rate]:.3f}" for rate in rates),
                f"{entry['fall']:.3f}",
                *(None if score is None else f"{score[0]}/{score[1]}" for score in entry["against"].values()),
                f"{entry['seconds']:.0f}",
                f"{entry['tuning_seconds']:.0f}",
                entry["diverged"],
            ]
            for entry in entries
        ]
        columns = ["model", *(f"{100 * float(rate):g} %" for rate in rates), "fall"]
        columns += [*(f"won/tied {rival}" for rival in RIVALS), "train s", "trials s", "diverged"]
        unit = {"reading": "readings dropped channel by channel", "time": "whole time points dropped"}[mechanic]
        cells = len(sets) * len(rates)
        caption = (
            f"{len(sets)} sets ({', '.join(sets)}), test accuracy, mean over the sets ± sd over {len(settings.seeds)} "
            f"seeds; won/tied of {cells} cells (set, rate); {settings.epochs} epochs, {settings.trials} trials a model "
            f"at 0 % missing, {settings.device}"
            + (f"; rows made {settings.workers} at a time: their seconds mean little" if settings.workers > 1 else "")
        )
        tables.append(table(f"{block}: {unit}", columns, lines, caption))
    return tables


def curves(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Accuracy over the missing rate, a panel for each block and way of dropping."""
    panels = list(dict.fromkeys((entry["block"], entry["mechanic"]) for entry in found))
    models = list(dict.fromkeys(entry["model"] for entry in found))
    with picture(file, (1.5 + 4.2 * len(panels), 4.0)) as figure:
        drawn = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(drawn, panels, strict=True):
            for entry in found:
                if (entry["block"], entry["mechanic"]) != panel:
                    continue
                place = models.index(entry["model"])
                rates = [100 * float(rate) for rate in entry["accuracy"]]
                style = {"color": f"C{place}", "marker": "osv^D<>pPX*h"[place % 12], "markersize": 4, "lw": 1.2}
                dashed = "--" if entry["nfe"] == 0 else "-"
                axes.plot(rates, list(entry["accuracy"].values()), dashed, label=entry["model"], **style)
            axes.set(title=f"{panel[0]}, by {panel[1]}", xlabel="missing, %", ylabel="test accuracy, mean over sets")
        drawn[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
