"""Habits of every test: one thread, deterministic draws, and a guard against leaked global state."""

from __future__ import annotations

import os

# Set before torch, numpy and numba load, so that worker processes and subprocesses inherit it: two threads
# that spin on the small tensors of a test are many times slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
# Tests say themselves when something is to be compiled.
os.environ["SCIODE_COMPILE"] = "0"
os.environ["MPLBACKEND"] = "Agg"
os.environ["JAX_PLATFORMS"] = "cpu"

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import rich.style  # noqa: F401 - draws from Python's global stream when first imported: here, before any test
import torch

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")


SLOW = (
    "test_a_loop_in_cpp_is_the_loop_in_python",
    "test_a_loop_on_the_device_takes_the_same_steps[sra1-additive-True]",
    "test_a_line_ends_at_the_horizon_even_where_its_step_does_not_divide_it[Galerkin, stream function]",
    "test_a_second_process_compiles_nothing_and_another_field_is_not_mistaken",
    "test_a_step_that_passes_more_outputs_than_a_turn_writes_is_differentiated_once",
    "test_an_ensemble_is_its_models_one_by_one[compiled]",
    "test_every_library_solves_the_same_problems[sciode compiled, joint]",
    "test_inductor_gives_the_same_numbers",
    "test_the_gradients_are_those_of_the_tape[coupled-direct]",
    "test_unseen_fields_give_what_eager_gives[three bodies]",
)
"""Tests, beside those marked so, that compile for long what others compile in smaller: left out without --slow."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that compile or train for long")


class _Global(NamedTuple):
    """One piece of process-wide state: how to read it, put it back and compare two readings."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = lambda before, after: before == after


def _read_cuda() -> list[torch.Tensor] | None:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _restore_cuda(states: list[torch.Tensor] | None) -> None:
    if states is not None:
        torch.cuda.set_rng_state_all(states)


def _same_cuda(before: list[torch.Tensor] | None, after: list[torch.Tensor] | None) -> bool:
    # The test that starts CUDA finds no earlier state to compare with.
    return before is None or after is None or all(map(torch.equal, before, after))


def _read_numpy() -> tuple[bytes, int, int, float]:
    _, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the legacy stream is what we guard
    return np.asarray(key).tobytes(), int(position), int(has_gauss), float(gauss)


def _restore_numpy(state: tuple[bytes, int, int, float]) -> None:
    key = np.frombuffer(state[0], dtype=np.uint32)
    np.random.set_state(("MT19937", key, *state[1:]))  # noqa: NPY002 - as above


GLOBAL_STATE = (
    _Global("torch RNG state", torch.get_rng_state, torch.set_rng_state, torch.equal),
    _Global("torch CUDA RNG state", _read_cuda, _restore_cuda, _same_cuda),
    _Global("numpy RNG state", _read_numpy, _restore_numpy),
    _Global("python random state", random.getstate, random.setstate),
    _Global("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Global("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Global("thread count", torch.get_num_threads, torch.set_num_threads),
    _Global("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _Global("deterministic algorithms", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    _Global("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
)


def _readings() -> list[Any]:
    return [piece.read() for piece in GLOBAL_STATE]


def _put_back(before: list[Any], where: str) -> None:
    """Restore each piece that differs from `before` and fail, naming all of them."""
    leaked = []
    for piece, old in zip(GLOBAL_STATE, before, strict=True):
        if not piece.same(old, piece.read()):
            leaked.append(piece.name)
            piece.restore(old)
    if leaked:
        pytest.fail(
            f"{where} leaked global state: {', '.join(leaked)}. Draw from an explicit generator or seed, "
            "build modules inside `with seeded(0):`, and restore what must be changed.",
            pytrace=False,
        )


_BEFORE_SETUP = pytest.StashKey[list[Any]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[_BEFORE_SETUP] = _readings()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    before = _readings()
    try:
        result = yield
    except BaseException:
        # The test's own failure is the news; the state is put back all the same.
        for piece, old in zip(GLOBAL_STATE, before, strict=True):
            piece.restore(old)
        raise
    _put_back(before, "the test")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    _put_back(item.stash[_BEFORE_SETUP], "a fixture")
    return result


# Triton looks when it is first imported. Without a GPU its programs are interpreted, operation by operation.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        long = pytest.mark.skip(reason="compiles or trains for long: --slow")
        for item in items:
            if item.name in SLOW or item.get_closest_marker("slow"):
                item.add_marker(long)
    if not torch.cuda.is_available():
        no_gpu = pytest.mark.skip(reason="needs a CUDA device: torch.cuda.is_available() is False here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(no_gpu)


@pytest.fixture(scope="session")
def seeded() -> Callable[[int], AbstractContextManager[None]]:
    """`with seeded(0): net = nn.Linear(2, 2)`: torch's global stream starts at the seed, and is put back after."""

    @contextmanager
    def stream(seed: int) -> Iterator[None]:
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    return stream


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets named by SCIODE_DATA; the test is skipped, with the reason, where it is absent."""
    named = os.environ.get("SCIODE_DATA")
    if not named:
        pytest.skip("SCIODE_DATA is not set: no folder of real data sets")
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        pytest.fail(f"SCIODE_DATA names {named}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout that holds these tests."""
    return Path(__file__).resolve().parent.parent
