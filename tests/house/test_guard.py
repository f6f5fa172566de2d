"""The guard in tests/conftest.py fails what leaks global state, puts the state back, and lets clean tests pass."""

from __future__ import annotations

from pathlib import Path

import pytest

LEAKS = {
    "torch RNG state": "torch.rand(1)",
    "numpy RNG state": "np.random.rand()",
    "python random state": "random.random()",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "grad mode": "torch.set_grad_enabled(False)",
    "thread count": "torch.set_num_threads(2)",
    "float32 matmul precision": "torch.set_float32_matmul_precision('medium')",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "anomaly detection": "torch.autograd.set_detect_anomaly(True)",
}

HEADER = "import random\nimport numpy as np\nimport pytest\nimport torch\n"

CLEAN = """
def test_generators(seeded):
    torch.rand(1, generator=torch.Generator().manual_seed(0))
    np.random.default_rng(0).random()
    random.Random(0).random()
    with seeded(3):
        first = torch.rand(1)
    with seeded(3):
        assert torch.equal(torch.rand(1), first)


def test_what_is_restored_is_no_leak():
    with torch.no_grad():
        torch.ones(1)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_a_fixture_may_change_and_restore(double):
    assert torch.ones(1).dtype == torch.float64


def test_one_thread():
    assert torch.get_num_threads() == 1
"""


def _run(pytester: pytest.Pytester, repository: Path, body: str) -> pytest.RunResult:
    pytester.makeconftest((repository / "tests" / "conftest.py").read_text())
    pytester.makepyfile(HEADER + body)
    return pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:torchtyping", "-p", "no:cacheprovider", "-v")


def test_clean_tests_pass(pytester: pytest.Pytester, repository: Path) -> None:
    _run(pytester, repository, CLEAN).assert_outcomes(passed=4)


def test_each_leak_fails_its_own_test_only(pytester: pytest.Pytester, repository: Path) -> None:
    body = "".join(
        f"def test_leak_{n}():\n    {leak}\n\n\ndef test_after_{n}():\n    pass\n\n\n"
        for n, leak in enumerate(LEAKS.values())
    )
    result = _run(pytester, repository, body)
    result.assert_outcomes(passed=len(LEAKS), failed=len(LEAKS))
    for name in LEAKS:
        result.stdout.fnmatch_lines([f"*the test leaked global state: {name}.*"])


FIXTURE_AND_FAILURE = """
@pytest.fixture
def drawn():
    return torch.rand(1)


def test_uses_a_leaking_fixture(drawn):
    assert drawn < 1


def test_fails_and_leaks():
    torch.rand(1)
    assert 1 == 2


def test_next():
    pass
"""


def test_a_leaking_fixture_is_an_error_and_a_failure_keeps_its_own_message(
    pytester: pytest.Pytester, repository: Path
) -> None:
    result = _run(pytester, repository, FIXTURE_AND_FAILURE)
    result.assert_outcomes(passed=2, errors=1, failed=1)
    result.stdout.fnmatch_lines(["*a fixture leaked global state: torch RNG state.*", "*assert 1 == 2*"])
