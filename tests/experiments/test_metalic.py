"""The table of METALIC: rewards made once, agents that play on them, rivals by hand, misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.experiments import metalic, metalic_rewards
from sciode.experiments.metalic import Settings
from sciode.experiments.metalic_rewards import Known, Table
from sciode.experiments.metalic_tables import compared, interval, summary
from sciode.pinn.metalic.arms import arms_of, place_of

REAL = torch.float64
TINY: dict[str, Any] = {
    "families": ("reaction",),
    "conditions": ("average", "flux", "residual continuity"),
    "menu": ("average", "flux"),
    "networks": (0,),
    "seeds": (0,),
    "train": 2,
    "test": 2,
    "plays": 6,
    "warm_up": 3,
    "lines": ("UCB", "sequential Thompson"),
    "adam": 3,
    "lbfgs": 1,
    "width": 3,
    "hidden": 1,
    "inside": 8,
    "data": 6,
    "interface": 4,
}


def test_a_table_is_made_once_and_its_rows_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metalic.main(tmp_path, "cpu", **TINY) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(len(row["arms"]) == 8 and len(row["pairs"]) == 4 for row in rows)
    for row in rows:
        menu = Table(conditions=TINY["conditions"], menu=TINY["menu"]).paired.tolist()
        # An arm of the menu that is paired with itself is that arm kept.
        assert [row["pairs"][k][k] for k in range(4)] == pytest.approx([row["arms"][m][1] for m in menu], abs=2e-4)
    agents = [json.loads(line) for line in (tmp_path / "agents" / "rows.jsonl").read_text().splitlines()]
    assert len(agents) == 2 and all(len(row["regret"]) == 6 for row in agents)
    assert all(b >= a >= 0 for row in agents for a, b in zip(row["regret"], row["regret"][1:], strict=False))
    assert "oracle of pairs" in capsys.readouterr().out
    assert all((tmp_path / name).stat().st_size > 0 for name in ("regret.png", "conditions.png", "arms.png"))
    for module, name in ((metalic_rewards, "_made"), (metalic, "played")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a finished row was made again"))
    assert metalic.main(tmp_path, "cpu", **TINY) == 0


def test_rivals_are_what_their_names_say() -> None:
    arms = arms_of(("average", "flux", "residual continuity"))
    cpinn, xpinn = place_of(arms, ("average", "flux")), place_of(arms, ("average", "residual continuity"))
    generator = torch.Generator().manual_seed(0)
    told, asked = (torch.rand(3, 8, 2, generator=generator, dtype=REAL) for _ in range(2))
    told[:, cpinn, 1], told[:, 0, 1] = 0.6, torch.tensor([5.0, 0.0, 0.0], dtype=REAL)
    told[:, xpinn, 1] = torch.tensor([0.0, 0.0, 1.0], dtype=REAL)
    contexts = torch.tensor([[-1.0], [0.0], [1.0]], dtype=REAL)
    nothing = torch.zeros(3, 4, 4, dtype=REAL), torch.zeros(3, dtype=REAL), torch.zeros(3, dtype=REAL)
    found = compared(arms, Known(contexts, told, *nothing), Known(contexts + 0.1, asked, *nothing))
    last = asked[..., 1]
    assert torch.equal(found["random arm"], last.mean(1)) and torch.equal(found["oracle"], last.max(1).values)
    # cPINN has the mean 0.6 in training, XPINN 1/3, the empty arm 5/3.
    assert torch.equal(found["best preset"], last[:, cpinn]) and torch.equal(found["best fixed arm"], last[:, 0])
    assert torch.equal(found["nearest task"], last[torch.arange(3), told[..., 1].argmax(1)])


def test_lines_are_compared_with_rivals_task_by_task() -> None:
    """An agent that is 0.3 decades above a preset on every task has no spread there, however tasks differ."""
    settings = Settings(**{**TINY, "lines": ("UCB",)})
    generator = torch.Generator().manual_seed(0)
    told, asked = (torch.rand(2, 8, 2, generator=generator, dtype=REAL) for _ in range(2))
    single, nothing = torch.tensor([0.2, 0.9], dtype=REAL), torch.zeros(2, 4, 4, dtype=REAL)
    known = {
        ("reaction", "train", 0): Known(single[:, None], told, nothing, single, single),
        ("reaction", "test", 0): Known(single[:, None], asked, nothing, single, single),
    }
    preset = compared(settings.arms, *known.values())["best preset"]
    row = {"family": "reaction", "line": "UCB", "network": 0, "rewards": (preset + 0.3).tolist(), "regret": [1.0, 2.0]}
    found = next(one for one in summary(settings, known, [row]) if one["line"] == "UCB")
    assert found["above_preset"] == pytest.approx((0.3, 0.0), abs=1e-12)
    mean, half = interval(preset + 0.3 - single)
    assert found["above_single"] == pytest.approx((mean, half)) and half > 0.1
    assert found["error"] == pytest.approx(10 ** -float((preset + 0.3).mean())) and found["regret"] == [2.0]


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    draws = torch.randn(2000, 6, generator=torch.Generator().manual_seed(2), dtype=REAL)
    held = [abs(mean) < half for mean, half in map(interval, draws)]
    assert abs(sum(held) / 2000 - 0.95) < 5 * (0.95 * 0.05 / 2000) ** 0.5


def test_more_tasks_begin_with_the_fewer_and_parts_differ() -> None:
    few, many = Table(train=3, test=3), Table(train=5, test=3)
    assert many.tasks("heat", "train")[:3] == few.tasks("heat", "train")
    assert not set(few.tasks("heat", "train")) & set(few.tasks("heat", "test"))
    assert len(few.arms) == 384 and len(few.paired) == 16
    assert Table(official=True).tasks("advection", "test")[0].official_supervision
    assert not few.tasks("advection", "test")[0].official_supervision


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lines": ("UCBB",)}, "there are"),
        ({"families": ("pooisson",)}, "poisson"),
        ({"menu": ("value",), "conditions": ("average",)}, "among the conditions"),
        ({"shares": {"advektion": 0.1}}, "no family"),
        ({"shares": {"advection": 2.0}}, "must lie in"),
        ({"plays": 0}, "at least 1"),
        ({"train": 0}, "at least 1"),
    ],
)
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**changes)
