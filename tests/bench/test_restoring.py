"""What the benchmarks of editing share: the rule by which CODE and SDEdit are compared, and the corruptions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciode.bench import editing, editing_mnist
from sciode.bench import restoring as bench
from sciode.bench.restoring import BOUNDS, PAPER, PLAIN, Curve, Setting


def _curve(method: str, distance: tuple[float, ...], accuracy: tuple[float, ...], **changes: Any) -> Curve:
    own = {"seed": 0, "part": "judge", "corruption": "noise", "before": 0.5, "evaluations": 46}
    return Curve(method=method, distance=distance, accuracy=accuracy, **(own | changes))


def test_accuracies_are_compared_at_equal_distance_alone() -> None:
    other = _curve("sdedit", (0.1, 0.3), (0.8, 0.4))
    for distance, wanted in ((0.2, 0.6), (0.05, 0.65), (0.0, 0.5)):
        # Between the input, right half of the time, and the other's first.
        assert bench.at_distance(other, distance) == pytest.approx(wanted)
    assert bench.at_distance(other, 0.9) is None


def test_settings_are_chosen_by_the_best_accuracy_in_the_mean_over_corruptions() -> None:
    found = [_curve(s.name, (0.1, 0.2), (0.6 if s == BOUNDS[2] else 0.4, 0.1)) for s in BOUNDS]
    assert bench.chosen(found, BOUNDS) == BOUNDS[2]


@pytest.mark.parametrize("judged", [(0,), (0, 4)])
def test_levels_are_those_that_the_other_images_chose(judged: tuple[int, ...]) -> None:
    """Where accuracy on the judged images is higher at another level, it does not count; a network is chosen for
    once."""
    found = [
        _curve("sdedit", (0.1, 0.3), (0.7, 0.2), part="choose"),
        _curve(PAPER.name, (0.1, 0.2), (0.6, 0.8), part="choose"),
    ]
    for seed in judged:
        found += [
            _curve("sdedit", (0.1, 0.3), (0.6, 0.4), seed=seed), _curve(PAPER.name, (0.1, 0.2), (0.9, 0.75), seed=seed),
        ]  # fmt: skip
    first, *_ = bench.verdicts(found)
    assert (first.way, first.before, first.sdedit, first.code, first.distance) == ("chosen", 0.5, 0.6, 0.75, 0.2)
    assert first.gain == pytest.approx(0.25) and first.met and first.sd == 0


def test_names_of_settings_are_apart() -> None:
    for climbs in (editing.CLIMBS, editing_mnist.CLIMBS):
        every = [*BOUNDS, PLAIN, *(Setting(updates=n, step=e) for n, e in climbs)]
        assert len({s.name for s in every}) == len(every)


@pytest.mark.parametrize(("table", "size"), [(editing.CORRUPTIONS, 8), (editing_mnist.CORRUPTIONS, 28)])
def test_corruptions_are_seeded_and_keep_the_shape(table: Any, size: int) -> None:
    x = torch.linspace(-1, 1, 3 * size**2).reshape(3, 1, size, size)
    for corruption in table.values():
        y = bench.corrupted(x, corruption, seed=4)
        assert y.shape == x.shape and bool((y == bench.corrupted(x, corruption, seed=4)).all()) and bool((y != x).any())


def test_sdedit_takes_as_many_evaluations_as_the_costliest_code_beside_it() -> None:
    calls: dict[str, int] = {}

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls["now"] = calls.get("now", 0) + 1
        return x

    def judge(x: torch.Tensor, labels: torch.Tensor) -> float:
        return 0.5

    def images(seed: int, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(2, 1, 4, 4), torch.zeros(2)

    one = {"noise": bench.noisy(0.5)}
    tried = bench.Bench(net, images, lambda seed: judge, one, (0.3,), (), {"one": 1.0}, steps=3)
    spent = {}
    for curve in bench.curves(tried, 0, "judge", [Setting(updates=4), PLAIN]):
        spent[curve.method] = calls.pop("now"), curve.evaluations
    assert spent == {"sdedit": (16, 16), "code, one 1.7, 4 x 0.05": (16, 16), "code, no clipping": (12, 12)}
