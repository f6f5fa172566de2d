"""The table of operators and equations: rows of every kind, made once; what learns nothing beforehand; misuse."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciode.experiments import prose, prose_speed
from sciode.experiments.prose import LINES, Settings
from sciode.experiments.prose_rows import EQUATIONS, chosen, operator_row
from sciode.experiments.sparse_equations import by_sparse_regression, imported, library
from sciode.prose import SYSTEMS, Drawing, Programs, Reading, Shape, Transformer, draw, filled
from sciode.prose.metrics import Terms, right_hand_error, terms_of
from sciode.prose.training import Pupil
from sciode.training import isolated_rng

SMALL: dict[str, Any] = {
    "systems": ("thomas", "sprott_b"), "noises": (0.02,), "told": ("known", "nothing"), "seeds": (0,), "equations": 2,
    "starts": 2, "steps": 2, "batch": 4, "test_equations": 1, "test_starts": 1, "written": 1, "beams": 2, "fit": 2,
    "engine": "eager",
}  # fmt: skip


def test_a_table_is_made_once_of_every_kind_of_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tuple(line for line in LINES if line not in EQUATIONS)
    how = {**SMALL, "lines": lines, "unseen": ("four_wing",)}
    assert prose.main(tmp_path, "cpu", **how) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["line"] for row in rows} == set(lines) and {row["part"] for row in rows} == {"seen", "unseen"}
    for row in rows:
        assert np.isfinite([row["l2"], row["near"], row["median"]]).all()
        assert set(row["systems"]) <= set(SMALL["systems"] if row["part"] == "seen" else how["unseen"])
    solved = [row for row in rows if row["line"] in prose.SOLVED]
    assert solved and all(row["valid"] == 1.0 and row["data_raised"] == 0.0 for row in solved)
    assert all(row["misfit_fitted"] <= row["misfit"] for row in solved)
    # Only what hears symbols has rows for what is told.
    told = {line: {row["told"] for row in rows if row["line"] == line} for line in lines}
    assert told["data only"] == told["data only, solved"] == {"known"}
    assert told["symbols only, solved"] == told["full, solved"] == {"known", "nothing"}
    assert len(list((tmp_path / "weights").iterdir())) == 5
    assert "Relative L2" in capsys.readouterr().out
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    # Fewer lines of the same models want no other training.
    again = {**how, "lines": ("data only",), "noises": (0.0,), "models": prose.Settings(**how).asked}
    monkeypatch.setattr(Pupil, "step", lambda *_: pytest.fail("a finished training went on"))
    assert prose.main(tmp_path, "cpu", **again) == 0
    monkeypatch.setattr(prose, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert prose.main(tmp_path, "cpu", **how) == 0


def test_what_learns_nothing_beforehand_has_one_seed(tmp_path: Path) -> None:
    how = {**SMALL, "lines": ("sparse regression",), "systems": ("sprott_b",), "noises": (0.0,), "seeds": (0, 1)}
    assert prose.main(tmp_path, "cpu", **how) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert (row["line"], row["seed"], row["data_raised"]) == ("sparse regression", 0, 0.0)
    assert row["misfit"] == row["misfit_fitted"] and np.isfinite([row["l2"], row["rhs"]]).all()


def test_the_last_value_errs_by_what_moves() -> None:
    test = filled(Drawing(("thomas",), 2, 2, engine="eager"), 0, 3)
    row = operator_row(None, test, Reading(64, 0, 0.0, fixed=True))
    values = test.values
    apart = (values[:, 64:] - values[:, 63:64]).square().sum((1, 2)).sqrt()
    expected = apart / values[:, 64:].square().sum((1, 2)).sqrt()
    assert row["l2"] == pytest.approx(float(expected.mean()), rel=1e-4)
    assert row["samples"] == len(test) and row["systems"]["thomas"] == pytest.approx(row["l2"])


def test_equations_are_written_of_as_many_sets_of_numbers_as_there_are() -> None:
    test = filled(Drawing(("thomas", "sprott_b"), 3, 4, engine="eager"), 0, 3)
    rows = chosen(test, 3)
    assert test.system[rows].tolist() == [0, 0, 0, 1, 1, 1] and test.owner[rows].unique().numel() == 6
    assert chosen(test, 100).tolist() == list(range(len(test)))


def test_a_row_of_speeds_counts_what_was_drawn_and_multiplied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose_speed, "matrix_rate", lambda device: 1e12)
    how: dict[str, Any] = {"lines": ("full", "no symbols", "pool"), "batches": (4, 8), "steps": 1, "equations": 1}
    how |= {"precisions": ("mixed", "bfloat16")}
    assert prose_speed.main(tmp_path, "cpu", **how, starts=1) == 0
    *steps, pool = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert pool["drawn"] == 12 >= pool["kept"]
    for row in steps:
        assert row["of_matrix_rate"] == pytest.approx(row["flop"] / row["step_seconds"] / 1e12) and not row["said"]
        assert row["made"] == "eager"
    flop = {(row["line"], row["batch"]): row["flop"] for row in steps}
    assert flop["full", 8] == 2 * flop["full", 4] and flop["no symbols", 4] < flop["full", 4]
    with pytest.raises(ValueError, match="unknown"):
        prose_speed.Settings(engines=("fast",))


def test_flop_of_a_layer_are_those_of_its_products() -> None:
    """Two products a weight forward and four backward; attention counts where a kernel of the card's makes it."""
    pool = prose_speed.random_pool(3, "cpu", 16)
    shape = Shape(width=8, heads=1, feedforward=16, data=1, symbols=1, fusion=1, operator=1, reads="data", writes=False)
    with isolated_rng(0):
        model, longer = Transformer(shape), Transformer(replace(shape, data=2))
    tokens, width = 65, 8
    products = 2 * tokens * (4 * width**2 + 2 * width * 16)
    attention = 2 * 2 * tokens**2 * width
    more = prose_speed._flop(longer, pool, 1) - prose_speed._flop(model, pool, 1)
    assert 3 * products <= more <= 3 * products + 3.6 * attention


def test_sparse_regression_finds_a_polynomial_system_from_fine_clean_data() -> None:
    how = Drawing(("sprott_b",), equations=1, starts=1, frames=400, end=12.0, engine="eager")
    (samples,) = draw(how, 2)
    found = by_sparse_regression(how.times, samples.values[0])
    true = samples.equations[0]
    assert Terms.between(terms_of(found, 1e-3), terms_of(true)).exact
    assert float(right_hand_error([found], [true], samples.values)[0]) < 1e-2


def test_the_library_has_each_product_once() -> None:
    terms = library(3)
    assert len(terms) == 20 + 6 and len(set(terms)) == len(terms)
    u = torch.tensor([[0.3, -0.5, 2.0]], dtype=torch.float64)
    values = Programs([[one] for one in terms], 3)(u.expand(len(terms), 1, 3))[..., 0].flatten().tolist()
    assert values[:3] == pytest.approx([1.0, 0.3, -0.5]) and 2.0**3 in [pytest.approx(v) for v in values]


def test_pysindys_terms_are_in_the_librarys_order() -> None:
    if importlib.util.find_spec("pysindy") is None:
        pytest.skip('needs pip install "sciode[prose]"')
    pysindy = imported()
    features = pysindy.PolynomialLibrary(3) + pysindy.FourierLibrary(1)
    x = np.random.default_rng(0).normal(size=(7, 3))
    theirs = np.asarray(features.fit_transform(x))
    u = torch.from_numpy(x).unbind(-1)
    ours = torch.stack([torch.as_tensor(one.at(u)).expand(7) for one in library(3)], -1).numpy()
    np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_settings_that_make_no_sense_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [
        {"lines": ("fully",)}, {"systems": ("lorentz",)}, {"told": ("something",)}, {"preset": "huge"},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValueError, match="unknown"):
            Settings(**wrong)
    with pytest.raises(ValueError, match="at least 1"):
        Settings(steps=0)
    with pytest.raises(ValueError, match="not among models"):
        Settings(lines=("full", "data only, solved"), models=("full",))
    assert len(Settings().seen) == 12 and len(Settings(dimension=5).seen) == len(SYSTEMS)
    assert "lorenz" not in Settings(unseen=("lorenz",)).seen
