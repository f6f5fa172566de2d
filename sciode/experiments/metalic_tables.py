"""The table and figures of METALIC: what agents, fixed sets and simple rules are worth on unseen tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
from scipy.stats import t as student
from torch import Tensor

from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, show, table
from sciode.pinn import CPINN, XPINN
from sciode.pinn.metalic.arms import place_of, varied

if TYPE_CHECKING:
    from sciode.experiments.metalic import Settings
    from sciode.experiments.metalic_rewards import Known

__all__ = ["compared", "draw_figures", "interval", "summary", "tell"]

_RANDOM, _PRESET, _SINGLE, _ORACLE = "random arm", "best preset", "single network", "oracle"
_RIVALS = {"above_random": _RANDOM, "above_preset": _PRESET, "above_single": _SINGLE}
"""What lines are compared with, task by task, by the name of the entry."""
Row = Mapping[str, Any]


def compared(arms: Tensor, train: Known, test: Known) -> dict[str, Tensor]:
    """Return the rewards [T] of what does not learn by playing, on the test tasks, by name.

    A random arm's is its expectation. "best preset" is XPINN or cPINN, "best fixed arm" any, whichever has the larger
    mean on all training tasks; "nearest task" is the best arm of the training task of the nearest context.
    """
    told, asked = train.arms[..., -1], test.arms[..., -1]
    presets = {}
    for name, conditions in (("XPINN", XPINN), ("cPINN", CPINN)):
        if set(conditions) <= set(varied(arms)):
            presets[name] = place_of(arms, conditions)
    found = {_RANDOM: asked.mean(1), _SINGLE: test.single}
    found |= {name: asked[:, place] for name, place in presets.items()}
    if presets:
        found[_PRESET] = asked[:, max(presets.values(), key=lambda place: float(told[:, place].mean()))]
    found["best fixed arm"] = asked[:, int(told.mean(0).argmax())]
    nearest = torch.cdist(test.contexts, train.contexts).argmin(1)
    found["nearest task"] = asked.gather(1, told.argmax(1)[nearest][:, None])[:, 0]
    return {**found, _ORACLE: asked.amax(1), "oracle of pairs": test.pairs.flatten(1).amax(1)}


def interval(values: Tensor) -> tuple[float, float]:
    """Return the mean of values [T] and half of its 95 % interval by Student's t, NaN for a single one."""
    half = (
        torch.nan if len(values) < 2 else student.ppf(0.975, len(values) - 1) * float(values.std()) / len(values) ** 0.5
    )
    return float(values.mean()), float(half)


def summary(settings: Settings, known: Mapping[Any, Known], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one entry a family and line: its error, and in decades with 95 % intervals how far it is above a random
    arm, the best preset (None where there is none) and a single network, and below the oracle.

    Intervals are over tasks, of differences on the same ones; each task's number is the mean over seeds of networks and
    agents. "regret" has one entry a seed, at the last play.
    """
    found = []
    for family in settings.families:
        fixed = [
            compared(settings.arms, known[family, "train", one], known[family, "test", one])
            for one in settings.networks
        ]
        every = {name: torch.stack([one[name] for one in fixed]) for name in fixed[0]}
        regrets: dict[str, list[float]] = {}
        for line in settings.lines:
            own = [row for row in rows if row["family"] == family and row["line"] == line]
            every[line] = torch.stack(
                [
                    torch.tensor([r["rewards"] for r in own if r["network"] == one], dtype=torch.float64).mean(0)
                    for one in settings.networks
                ]
            )
            regrets[line] = [row["regret"][-1] for row in own]
        for name, values in every.items():
            entry: dict[str, Any] = {"family": family, "line": name, "error": 10 ** -float(values.mean())}
            for place, rival in _RIVALS.items():
                entry[place] = interval((values - every[rival]).mean(0)) if rival in every else None
            entry["below_oracle"] = interval((every[_ORACLE] - values).mean(0))
            found.append({**entry, "regret": regrets.get(name)})
    return found


def tell(settings: Settings, found: Sequence[Row]) -> None:
    """Print a table a family."""
    for family in settings.families:
        cells = [
            [
                one["line"],
                f"{one['error']:.2e}",
                f"{10 ** one['below_oracle'][0]:.2f}",
                *(_spread(one[place]) for place in _RIVALS),
                None if one["regret"] is None else mean_sd(one["regret"], 1),
            ]
            for one in found
            if one["family"] == family
        ]
        caption = (
            f"{settings.test} unseen tasks, {len(settings.arms)} arms, {settings.plays} plays, "
            f"{len(settings.networks)} x {len(settings.seeds)} seeds; error: geometric mean; decades with 95 % "
            "intervals over tasks"
        )
        columns = ["line", "error", "of oracle's", "above random", "preset", "single network", "regret"]
        show(table(family, columns, cells, caption))


def _spread(pair: tuple[float, float] | None) -> str | None:
    return None if pair is None else f"{pair[0]:.2f} ± {pair[1]:.2f}"


def draw_figures(settings: Settings, known: Mapping[Any, Known], rows: Sequence[Row], out: Path) -> None:
    """Draw regret.png, conditions.png and arms.png, a panel a family."""
    from sciode.lab import bandit_plots

    families = settings.families
    with picture(out / "regret.png", (4.2 * len(families), 3.6)) as drawing:
        for axes, family in zip(drawing.subplots(1, len(families), squeeze=False)[0], families, strict=True):
            for place, line in enumerate(settings.lines):
                own = [row["regret"] for row in rows if row["family"] == family and row["line"] == line]
                bandit_plots.regret(axes, own, label=line, color=f"C{place % 10}")
            mean = fmean(_random_regret(known[family, "train", one]) for one in settings.networks)
            line = (mean * torch.arange(1, settings.plays + 1)).tolist()
            bandit_plots.regret(axes, [line], label=_RANDOM, color="0.4", style="--")
            # A few seeds' intervals reach far beyond what regret can be.
            axes.set(title=family, xlim=(0, settings.plays), ylim=(0, 1.05 * line[-1]))
        drawing.axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
    line = settings.lines[0]
    with picture(out / "conditions.png", (1.8 + 2.8 * len(families), 5.0)) as drawing:
        panels = drawing.subplots(2, len(families), squeeze=False)
        for axes in panels[:, 1:].flat:
            axes.tick_params(labelleft=False)
        for column, family in enumerate(families):
            own = [row for row in rows if row["family"] == family and row["line"] == line]
            names = varied(settings.arms)
            effect, spread = _pooled([row["effects"] for row in own])
            bandit_plots.conditions(panels[0, column], names, effect, spread, unit="added to the reward, decades")
            panels[0, column].set_title(f"{family}: {line}")
            weights = [row["weights"] for row in own]
            if len(weights[0]) == len(names):
                each = list(zip(*weights, strict=True))
                sd = [stdev(one) if len(one) > 1 else 0.0 for one in each]
                bandit_plots.conditions(panels[1, column], names, [fmean(one) for one in each], sd, unit="weight")
    with picture(out / "arms.png", (4.8 * len(families), 4.0)) as drawing:
        for axes, family in zip(drawing.subplots(1, len(families), squeeze=False)[0], families, strict=True):
            test = known[family, "test", settings.networks[0]]
            marks = next(
                [arms[0] for arms in row["chosen"]] for row in rows if row["family"] == family and row["line"] == line
            )
            alone = len(marks) == len(test.contexts) and len(settings.pool(line)) == len(settings.arms)
            bandit_plots.rewards(axes, test.contexts[:, 0], test.arms[..., -1], marks=marks if alone else ())
            axes.set_title(f"{family}: dots are {line}'s")


def _random_regret(train: Known) -> float:
    """What a random arm loses in a play."""
    told = train.arms[..., -1]
    return float((told.amax(1) - told.mean(1)).mean())


def _pooled(effects: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the equal mixture of agents' posteriors."""
    means, spreads = (torch.tensor([one[k] for one in effects], dtype=torch.float64) for k in (0, 1))
    total = spreads.square().mean(0) + means.var(0, unbiased=False)
    return means.mean(0).tolist(), total.sqrt().tolist()
