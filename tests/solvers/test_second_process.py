"""What one process compiled, the next one finds on disk: counted by the compiler's own counters, not by a clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import json, sys, warnings
import torch
from sciode import solve
from sciode.solvers.engines import CompileNotice
from torch._dynamo.utils import counters

warnings.simplefilter("error", CompileNotice)
torch.set_num_threads(1)
function = {"sin": torch.sin, "tanh": torch.tanh}[sys.argv[1]]
y0 = torch.linspace(0.0, 1.0, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
solution = solve(lambda t, y: -function(y), y0, ts, dt=0.25, method="euler", engine="compiled")
assert solution.stats.engine == "compiled"
solution.ys.square().sum().backward()
print(json.dumps([dict(counters["inductor"]), solution.ys[-1].tolist(), y0.grad.tolist()]))
"""


@pytest.mark.skipif(torch.__version__ < "2.12", reason="this torch cannot compile a loop as a whole and keeps no trace")
def test_a_second_process_compiles_nothing_and_another_field_is_not_mistaken(tmp_path: Path) -> None:
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}

    def run(function: str) -> list:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, function]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first, second = run("sin"), run("sin")
    loops = first[0]["fxgraph_cache_miss"]
    assert loops == 2, "the loop forward and the loop back"
    assert second[0]["fxgraph_cache_hit"] == loops
    assert not second[0].keys() & {"fxgraph_cache_miss", "fxgraph_cache_bypass"}
    assert second[1:] == first[1:]
    # Two loops that differ in what their bodies do, and in nothing else, are two.
    other = run("tanh")
    assert other[0]["fxgraph_cache_miss"] == loops
    assert other[1:] != first[1:]
