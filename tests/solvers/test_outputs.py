"""What a solution holds: shapes, padding, nesting, functions of the state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import Save, expand_time, solve
from sciode.testing import EXPONENTIAL, HOPF

NAN = float("nan")
PADDED = torch.tensor([[0.0, 0.5, 0.0, 0.0], [0.4, 1.0, 0.1, 0.5], [1.0, 2.0, 0.3, NAN], [NAN, 3.0, 0.7, NAN]]).double()
TS = torch.linspace(0, 1, 6, dtype=torch.float64)


def pair(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    u, v = y
    f = HOPF.field(expand_time(t, u), torch.cat((u, v), dim=-1))
    return f[..., :1], f[..., 1:]


def named(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    u, v = pair(t, (y["u"], y["v"]))
    return {"v": v, "u": u}


@pytest.mark.parametrize("dt", [None, 0.05])
def test_samples_may_have_times_of_their_own_with_padding(dt: float | None) -> None:
    solution = solve(HOPF.field, HOPF.y0, PADDED, dt=dt, batch_dims=1)
    assert torch.equal(solution.valid, ~PADDED.isnan())
    assert torch.equal(solution.ts.nan_to_num(-1), PADDED.nan_to_num(-1))
    assert bool(torch.isfinite(solution.ys).all())
    for i in range(4):
        own = PADDED[:, i][~PADDED[:, i].isnan()]
        alone = solve(HOPF.field, HOPF.y0[i : i + 1], own, dt=dt, batch_dims=1)
        torch.testing.assert_close(solution.ys[: len(own), i], alone.ys[:, 0], rtol=1e-14, atol=1e-14)
        assert torch.equal(solution.ys[len(own) :, i], solution.ys[len(own) - 1, i].expand(4 - len(own), 2))


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_held_values_carry_no_gradient(adjoint: str) -> None:
    y0 = HOPF.y0.requires_grad_()
    solution = solve(HOPF.field, y0, PADDED, batch_dims=1, adjoint=adjoint)
    held = (solution.ys * (~solution.valid).unsqueeze(-1)).sum()
    (gradient,) = torch.autograd.grad(held, y0, retain_graph=True)
    assert gradient.abs().max() == 0
    (gradient,) = torch.autograd.grad((solution.ys * solution.valid.unsqueeze(-1)).sum(), y0)
    assert bool((gradient.abs().amax(1) > 0).all())


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("dt", [None, 0.05])
def test_a_batch_of_one_holds_its_last_value_too_and_not_the_one_before(dt: float | None, adjoint: str) -> None:
    y0 = HOPF.y0[:1].clone().requires_grad_()
    ts = torch.tensor([[0.0], [0.5], [NAN]], dtype=torch.float64)
    for save in (Save(), Save(fn=lambda t, y: y)):
        solution = solve(HOPF.field, y0, ts, dt=dt, batch_dims=1, adjoint=adjoint, engine="eager", save=save)
        assert solution.valid[:, 0].tolist() == [True, True, False]
        assert torch.equal(solution.ys[2], solution.ys[1])
        (gradient,) = torch.autograd.grad(solution.ys[2].sum() + 0 * solution.ys[1].sum(), y0)
        assert gradient.abs().max() == 0


@pytest.mark.parametrize("how", [{"batch_dims": 1}, {"coupled": True}, {"dt": 0.1, "batch_dims": 1}])
@pytest.mark.parametrize("save", ["ts", "steps", "dense"])
def test_tuples_and_dicts_are_solved_as_their_concatenation(save: str, how: dict[str, Any]) -> None:
    plain = solve(HOPF.field, HOPF.y0, TS, save=save, **how)
    u, v = solve(pair, (HOPF.y0[:, :1], HOPF.y0[:, 1:]), TS, save=save, **how).ys
    torch.testing.assert_close(torch.cat((u, v), -1), plain.ys, rtol=1e-13, atol=1e-13)
    ys = solve(named, {"u": HOPF.y0[:, :1], "v": HOPF.y0[:, 1:]}, TS, save=save, **how).ys
    assert list(ys) == ["u", "v"]
    torch.testing.assert_close(torch.cat((ys["u"], ys["v"]), -1), plain.ys, rtol=1e-13, atol=1e-13)


def test_tolerances_may_differ_between_leaves() -> None:
    def field(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"calm": -y["calm"], "fast": 30 * torch.cos(30 * expand_time(t, y["fast"])) + 0 * y["fast"]}

    y0 = {"calm": torch.ones(2, 1).double(), "fast": torch.zeros(2, 1).double()}
    strict = solve(field, y0, [0.0, 2.0], rtol=1e-9, atol=1e-6)
    loose = solve(field, y0, [0.0, 2.0], rtol=1e-9, atol={"calm": 1e-6, "fast": 1e3})
    assert bool((loose.stats.accepted < strict.stats.accepted).all())


@pytest.mark.parametrize(
    ("shape", "batch_dims", "batch"),
    [
        ((), None, ()), ((5,), None, ()), ((3, 2), None, (3,)), ((3, 2, 2), None, (3,)), ((3, 2), 0, ()),
        ((2, 3, 4), 2, (2, 3)), ((2, 3), 2, (2, 3)), ((4,), 1, (4,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dt", [None, 0.25])
def test_shapes_of_time_state_and_results(
    shape: tuple[int, ...], batch_dims: int | None, batch: tuple[int, ...], dt: float | None
) -> None:
    times = set()

    def field(t: Tensor, y: Tensor) -> Tensor:
        times.add(tuple(t.shape))
        assert y.shape == shape and t.dtype == y.dtype
        return -y * torch.cos(t)

    y0 = torch.linspace(1, 2, max(1, torch.Size(shape).numel())).double().reshape(shape)
    solution = solve(field, y0, TS, batch_dims=batch_dims, dt=dt, save="dense")
    assert times == {(*batch, *(1,) * (len(shape) - len(batch))) if batch else ()}
    assert solution.ys.shape == (6, *shape) and solution.valid.shape == (6, *batch)
    for x in (
        solution.status,
        solution.stats.nfe,
        solution.stats.accepted,
        solution.stats.rejected,
        solution.stats.steps,
    ):
        assert x.shape == batch
    assert solution.interpolate(0.3).shape == shape
    assert solution.interpolate(TS).shape == (6, *shape)
    exact = y0 * torch.exp(-torch.sin(TS)).reshape(6, *(1,) * len(shape))
    torch.testing.assert_close(solution.ys, exact, rtol=2e-4, atol=0)


def test_time_of_a_nested_state_has_the_batchs_shape() -> None:
    def field(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        assert t.shape == (2,)
        assert expand_time(t, y[0]).shape == (2, 1) and expand_time(t, y[1]).shape == (2, 1, 1)
        return -y[0], -y[1] * expand_time(t, y[1])

    a, b = solve(field, (torch.ones(2, 3), torch.ones(2, 3, 4)), [0.0, 1.0]).ys
    assert a.shape == (2, 2, 3) and b.shape == (2, 2, 3, 4)


def test_complex_states_receive_real_time() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        assert t.dtype == torch.float32
        return 1j * y

    assert solve(field, torch.ones(2, 1, dtype=torch.complex64), [0.0, 1.0]).ys.dtype == torch.complex64


def test_several_batch_axes_are_the_flattened_batch() -> None:
    y0 = torch.stack((HOPF.y0, 0.5 * HOPF.y0))
    nested = solve(HOPF.field, y0, TS, batch_dims=2)
    flat = solve(HOPF.field, y0.reshape(8, 2), TS, batch_dims=1)
    torch.testing.assert_close(nested.ys.reshape(6, 8, 2), flat.ys, rtol=1e-14, atol=1e-14)
    assert torch.equal(nested.stats.accepted.reshape(8), flat.stats.accepted)


@pytest.mark.parametrize("how", [{"batch_dims": 1}, {"coupled": True}, {"dt": 0.1, "batch_dims": 1}])
@pytest.mark.parametrize("at", ["ts", "steps", "dense"])
def test_save_fn_is_the_function_of_the_states(at: Any, how: dict[str, Any]) -> None:
    def fn(t: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"energy": (y * y).sum(-1), "time": t.squeeze(-1) + 0 * y[..., 0]}

    plain = solve(HOPF.field, HOPF.y0, TS, save=at, **how)
    kept = solve(HOPF.field, HOPF.y0, TS, save=Save(at, fn=fn), **how)
    torch.testing.assert_close(kept.ys["energy"], (plain.ys**2).sum(-1), rtol=1e-14, atol=1e-14)
    times = plain.ts if plain.ts.ndim == 2 else plain.ts.unsqueeze(-1).expand(-1, 4)
    torch.testing.assert_close(kept.ys["time"], times, rtol=1e-14, atol=1e-14)
    assert torch.equal(kept.valid, plain.valid)


def test_save_fn_receives_args() -> None:
    kept = solve(
        lambda t, y, k: -k * y, torch.ones(2, 3), [0.0, 1.0], args=2.0, save=Save(fn=lambda t, y, k: k * y[:, 0])
    )
    torch.testing.assert_close(kept.ys[0], torch.full((2,), 2.0))


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_gradients_flow_through_save_fn(adjoint: str) -> None:
    y0 = HOPF.y0.requires_grad_()
    plain = solve(HOPF.field, y0, TS, batch_dims=1, adjoint=adjoint).ys
    kept = solve(HOPF.field, y0, TS, batch_dims=1, adjoint=adjoint, save=Save(fn=lambda t, y: (y * y).sum(-1))).ys
    (want,) = torch.autograd.grad((plain**2).sum(), y0)
    (got,) = torch.autograd.grad(kept.sum(), y0)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_saved_steps_are_each_samples_own_with_the_last_one_held(sign: int) -> None:
    solution = solve(HOPF.field, HOPF.y0, [0.0, sign * 0.4], batch_dims=1, save="steps", rtol=1e-9, atol=1e-9)
    count = solution.stats.accepted + 1
    assert torch.equal(solution.valid.sum(0), count) and solution.ts.shape == (int(count.max()), 4)
    assert int(count.min()) < int(count.max())
    for i, n in enumerate(count.tolist()):
        assert bool((sign * torch.diff(solution.ts[:n, i]) > 0).all())
        assert solution.ts[0, i] == 0 and float(solution.ts[n - 1, i]) == sign * 0.4
        assert torch.equal(solution.ys[n - 1 :, i], solution.ys[n - 1, i].expand(len(solution.ys) - n + 1, 2))
        exact = HOPF.exact(solution.ts[:n, i, None], HOPF.y0[i : i + 1])
        torch.testing.assert_close(solution.ys[:n, i], exact, rtol=0, atol=1e-5)


def test_results_do_not_alias_the_input_or_each_other() -> None:
    y0 = HOPF.y0
    first = solve(HOPF.field, y0, TS, batch_dims=1)
    before = first.ys.clone()
    y0.add_(1)
    first.ys[-1].add_(1)
    assert torch.equal(first.ys[:-1], before[:-1])


def test_the_first_output_is_the_start_itself() -> None:
    modes: list[dict[str, Any]] = [{"batch_dims": 1}, {"coupled": True}, {"dt": 0.1, "batch_dims": 1}]
    for how in modes:
        assert torch.equal(solve(HOPF.field, HOPF.y0, TS, **how).ys[0], HOPF.y0)


def test_an_output_at_the_end_of_a_fixed_step_is_the_step_itself() -> None:
    steps = solve(EXPONENTIAL.field, EXPONENTIAL.y0, [0.0, 1.0], method="rk4", dt=0.125, batch_dims=1, save="steps")
    at_ts = solve(EXPONENTIAL.field, EXPONENTIAL.y0, steps.ts, method="rk4", dt=0.125, batch_dims=1)
    assert torch.equal(steps.ys, at_ts.ys)


def test_output_costs_no_evaluation_where_the_interpolant_has_no_extra_stage() -> None:
    few = solve(HOPF.field, HOPF.y0, [0.0, 1.0], method="tsit5", batch_dims=1)
    many = solve(HOPF.field, HOPF.y0, torch.linspace(0, 1, 101), method="tsit5", batch_dims=1)
    assert few.stats.calls == many.stats.calls
