"""scikit-learn's digits, and the denoiser that is trained of them."""

from __future__ import annotations

import pytest
import torch

from sciode.lab.scans import SCHEDULE, denoiser, scans

pytest.importorskip("sklearn", reason="scikit-learn comes with the lab extra")


def test_every_digit_is_on_one_side_and_the_split_is_always_the_same() -> None:
    data, again, whole = scans(), scans(), scans(0)
    assert (len(data.train), len(data.test), len(whole.train), len(whole.test)) == (1297, 500, 1797, 0)
    assert float(data.train.abs().max()) == 1.0 and torch.equal(data.train, again.train)
    assert torch.equal(torch.cat((data.test, data.train)), whole.train)
    assert torch.equal(torch.cat((data.test_labels, data.train_labels)), whole.rows["label"])
    with pytest.raises(ValueError, match="0 to 1796"):
        scans(1797)


@pytest.mark.parametrize("told", [False, True])
def test_a_few_steps_of_training_denoise_better_than_none(told: bool) -> None:
    data = scans()
    rows = data.rows if told else {"x": data.train}
    losses = []
    for steps in (1, 100):
        net = denoiser(rows, steps=steps, width=64).network
        z = torch.randn(data.test.shape, generator=torch.Generator().manual_seed(5))
        alpha, sigma = (float(f(0.3)) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        with torch.no_grad():
            losses.append(float((net(alpha * data.test + sigma * z, torch.full((500,), 0.3)) - z).square().mean()))
    assert losses[1] < 0.8 * losses[0]
