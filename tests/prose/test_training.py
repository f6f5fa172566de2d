"""Training: batches are what they say, steps lower the loss, and a run that was interrupted is the same run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from sciode.prose import (
    PRESETS,
    SYSTEMS,
    Course,
    DeepONet,
    Drawing,
    FourierOperator,
    Pool,
    Reading,
    Told,
    Training,
    Transformer,
    Vocabulary,
    filled,
    load_model,
    save_model,
)
from sciode.prose.guesses import KNOWN, NOTHING, WRONG, guesses_of
from sciode.prose.objective import losses, predicted, relative_l2
from sciode.prose.training import Pupil
from sciode.training import isolated_rng

HOW = Drawing(("thomas", "sprott_b"), equations=3, starts=2, frames=24, end=3.0, engine="eager")
READING = Reading(frames=8, queries=5)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return filled(HOW, 0, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def models(names: tuple[str, ...] = ("full", "DeepONet", "Fourier")) -> dict[str, torch.nn.Module]:
    with isolated_rng(0):
        every: dict[str, torch.nn.Module] = {
            "full": Transformer(PRESETS["tiny"]),
            "DeepONet": DeepONet(3, 8, 16, 8),
            "Fourier": FourierOperator(3, 24, 3.0, 8, 6, 2),
        }
    return {name: every[name] for name in names}


def test_a_batch_reads_the_first_frames_and_asks_for_the_truth(pool: Pool) -> None:
    clean = replace(READING, noise=0.0, queries=0)
    batch = pool.rows(torch.arange(len(pool)), clean, generator())
    assert torch.equal(batch.values, pool.values[:, :8]) and torch.equal(batch.answers, pool.values[:, 8:])
    torch.testing.assert_close(batch.ask[0], HOW.times[8:].float())
    for ids, owner in zip(batch.following.tolist(), pool.owner.tolist(), strict=True):
        assert ids == pool.targets[owner].tolist()
    assert bool((batch.written[:, 1:] == batch.following[:, :-1]).all())
    asked = pool.rows(torch.arange(len(pool)), READING, generator())
    places = (asked.ask[0][:, None] - HOW.times.float()).abs().argmin(1)
    assert torch.equal(asked.answers[0], pool.values[0, places])


def test_targets_are_the_equations_of_the_trajectories(pool: Pool) -> None:
    """Central differences of each trajectory against what its tokens say."""
    fine = filled(replace(HOW, frames=601), 0, 3)
    step = float(fine.times[1])
    for row in (0, len(fine) - 1):
        tokens = [one for one in fine.targets[fine.owner[row]].tolist() if one != 0]
        equations = Vocabulary(3).decoded(tokens)
        values = fine.values[row].double()
        slope = (values[2:] - values[:-2]) / (2 * step)
        said = torch.stack([one.at(values[1:-1].unbind(-1)) for one in equations], -1)
        torch.testing.assert_close(said, slope, rtol=1e-2, atol=5e-3)


def test_noise_is_as_large_as_it_says_and_each_samples_own(pool: Pool) -> None:
    rows = torch.zeros(400, dtype=torch.long)
    level = 0.05
    fixed = pool.rows(rows, replace(READING, noise=level, fixed=True), generator())
    clean = pool.values[0, :8]
    apart = (fixed.values - clean).square().mean().sqrt() / clean.square().mean().sqrt()
    assert float(apart) == pytest.approx(level, rel=0.05)
    drawn = pool.rows(rows, replace(READING, noise=level), generator())
    sizes = (drawn.values - clean).square().mean((1, 2)).sqrt() / clean.square().mean().sqrt()
    assert float(sizes.max()) < 2 * level and float(sizes.min()) < 0.2 * level


def test_guesses_come_as_often_as_told_and_are_what_they_say() -> None:
    vocabulary = Vocabulary(3)
    guesses = guesses_of((SYSTEMS["lorenz"], SYSTEMS["thomas"]), vocabulary)
    system = torch.ones(6000, dtype=torch.long)
    right = vocabulary.encoded([e.bound(SYSTEMS["thomas"].nominal) for e in SYSTEMS["thomas"].equations], True)

    def cut(ids: torch.Tensor) -> list[int]:
        return [one for one in ids.tolist() if one != vocabulary.ids["pad"]]

    shares = guesses.drawn(system, Told(0.5, 0.3), generator())
    exact = sum(cut(ids) == right for ids in shares) / 6000
    assert abs(exact - 0.5) < 0.03
    assert all(cut(ids) == right for ids in guesses.drawn(system[:50], KNOWN, generator()))
    words = vocabulary.words
    assert {" ".join(words[k] for k in cut(ids)) for ids in guesses.drawn(system[:50], NOTHING, generator())} == {
        "C | C | C end"
    }
    lengths = {len(cut(ids)) for ids in guesses.drawn(system, WRONG, generator())}
    assert min(lengths) < len(right) < max(lengths) and len(right) not in lengths


def test_losses_are_those_of_their_formulas(pool: Pool) -> None:
    batch = pool.batch(6, READING, generator())
    for name, model in models().items():
        model = model.eval()
        found = losses(model, batch)
        answers = predicted(model, batch)
        error = (answers - batch.answers).square().sum((1, 2)) / (batch.answers.square().sum((1, 2)) + 1e-5)
        torch.testing.assert_close(found.data, error.mean(), rtol=1e-4, atol=1e-5)
        if name != "full":
            assert float(found.symbols) == 0.0
    assert float(relative_l2(batch.answers, batch.answers).max()) < 1e-6


def test_operators_answer_each_time_alone(pool: Pool) -> None:
    batch = pool.batch(4, READING, generator())
    for model in models(("DeepONet", "Fourier")).values():
        model = model.eval()
        every = predicted(model, batch)
        one = model(batch.times, batch.values, batch.ask[:, 2:3])
        torch.testing.assert_close(every[:, 2:3], one, rtol=1e-4, atol=1e-5)


def test_training_lowers_every_loss_and_leaves_averaged_weights(pool: Pool) -> None:
    course = Course(steps=60, batch=24, lr=3e-3, warmup=5, every=20, average=0.9, reading=READING)
    own = models()
    batch = pool.rows(torch.arange(len(pool)), READING, generator())

    def now() -> dict[str, list[float]]:
        with torch.no_grad():
            return {name: torch.stack(losses(one, batch)).tolist() for name, one in own.items()}

    before = now()
    seen: list[dict[str, Any]] = []
    training = Training(own, lambda _: pool, course, tell=seen.append)
    training.run()
    assert [record["step"] for record in seen] == [20, 40, 60] and training.over
    pupil = training.pupils["full"]
    assert any(not torch.equal(w, a) for w, a in zip(pupil.weights, pupil.average, strict=True))
    training.judge()
    assert all(torch.equal(w, a) for w, a in zip(pupil.weights, pupil.average, strict=True))
    after = now()
    for name in own:
        assert after[name][0] < 0.9 * before[name][0], name
    assert after["full"][1] < 0.7 * before["full"][1]


def test_models_side_by_side_are_models_alone(pool: Pool) -> None:
    course = Course(steps=4, batch=8, every=2, reading=READING)
    together, alone = models(), models(("Fourier",))
    Training(together, lambda _: pool, course).run()
    Training(alone, lambda _: pool, course).run()
    for a, b in zip(together["Fourier"].parameters(), alone["Fourier"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_layers_of_a_kind_are_compiled_once_and_move_the_same(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    batch = pool.batch(4, READING, generator())
    found = []
    for engine in ("eager", "compile"):
        with isolated_rng(0):
            model = Transformer(replace(PRESETS["tiny"], fusion=3, writer=2))
        plain, pupil = model.run, Pupil(model, Course(lr=1e-3, engine=engine))
        counters.clear()
        for number in range(2):
            pupil.step(batch, 1e-3, number)
        found.append(pupil.seen.clone())
        assert pupil.engine == ("compiled" if engine == "compile" else "eager") and model.run is plain
    # Of frames, of symbols, of both, of the operator, of the writer.
    assert counters["stats"]["unique_graphs"] == 5
    torch.testing.assert_close(*found)


def test_layers_in_half_precision_move_weights_that_stay_whole(pool: Pool) -> None:
    """What passes between layers is bfloat16; losses after some steps are those of float32 to its three digits."""
    batch = pool.batch(8, READING, generator())
    found = []
    for precision in ("mixed", "bfloat16"):
        model, kinds = models(("full",))["full"], set[torch.dtype]()
        assert isinstance(model, Transformer)
        model.run = lambda block, x, *given, kinds=kinds: (kinds.add(x.dtype), block(x, *given))[1]
        pupil = Pupil(model, Course(lr=1e-3, precision=precision))
        for number in range(3):
            pupil.step(batch, 1e-3, number)
        assert kinds == {torch.float32 if precision == "mixed" else torch.bfloat16}
        assert {one.dtype for one in (*model.parameters(), *pupil.average)} == {torch.float32}
        found.append(pupil.seen)
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


def test_an_interrupted_run_is_the_same_run(pool: Pool, tmp_path: Path) -> None:
    course = Course(steps=6, batch=8, every=1, renew=2, reading=READING)
    whole, parts = models(("full",)), models(("full",))
    pools = [pool, filled(HOW, 1, 3), filled(HOW, 2, 3)]
    Training(whole, pools.__getitem__, course).run()

    class Stop(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            raise Stop

    first = Training(parts, pools.__getitem__, course, tmp_path, stop)
    with pytest.raises(Stop):
        first.run()
    first.save()
    again = models(("full",))
    second = Training(again, pools.__getitem__, course, tmp_path)
    assert second.step == 3
    second.run()
    for a, b in zip(whole["full"].parameters(), again["full"].parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="another course"):
        Training(again, pools.__getitem__, replace(course, lr=1.0), tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(pool: Pool) -> None:
    own = models(("DeepONet",))
    with torch.no_grad():
        next(own["DeepONet"].parameters()).fill_(torch.nan)
    with pytest.raises(ArithmeticError, match="lower lr"):
        Training(own, lambda _: pool, Course(steps=2, batch=4, every=1, reading=READING)).run()


def test_the_rate_rises_and_falls_by_steps_or_seconds() -> None:
    course = Course(steps=1000, lr=1.0, warmup=10, last=0.1)
    assert course.rate(0, 0.0) == pytest.approx(0.1) and course.rate(10, 0.0) == pytest.approx(1.0, abs=1e-3)
    assert course.rate(1000, 0.0) == pytest.approx(0.1)
    timed = replace(course, seconds=10.0)
    assert timed.rate(20, 10.0) == pytest.approx(0.1) and timed.rate(20, 5.0) == pytest.approx(0.55)


def test_a_saved_model_answers_as_it_did(pool: Pool, tmp_path: Path) -> None:
    model = models(("full",))["full"].eval()
    assert isinstance(model, Transformer)
    batch = pool.batch(3, READING, generator())
    for half, close in ((False, 0.0), (True, 2e-2)):
        save_model(tmp_path / "model.safetensors", model, half=half, systems=("thomas",))
        again, record = load_model(tmp_path / "model.safetensors")
        torch.testing.assert_close(predicted(again, batch), predicted(model, batch), rtol=close, atol=close)
        assert record["systems"] == ["thomas"] and again.shape == model.shape
    Training({"full": model}, lambda _: pool, Course(steps=1, every=1), tmp_path / "run").save()
    with pytest.raises(ValueError, match="save_model"):
        load_model(tmp_path / "run" / "training.safetensors")


def test_courses_and_readings_that_make_no_sense_are_refused(pool: Pool) -> None:
    wrongs: list[dict[str, Any]] = [{"steps": 0}, {"lr": 0.0}, {"average": 1.0}, {"engine": "graph"}]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            Course(**wrong)
    with pytest.raises(ValueError, match="bfloat16"):
        Course(precision="float16")
    with pytest.raises(ValueError, match="frames"):
        Reading(frames=1)
    with pytest.raises(ValueError, match="shares"):
        Told(0.8, 0.3)
    with pytest.raises(ValueError, match="at most 23"):
        pool.batch(2, Reading(frames=24), generator())
    with pytest.raises(ValueError, match="4 components"):
        filled(Drawing(("lorenz_96_4",), 1, 1), 0, 3)
