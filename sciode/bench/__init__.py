"""Side-by-side benchmarks against other libraries: BENCHMARKS names them, a file each."""

BENCHMARKS = (
    "solvers",
    "engines",
    "epoch",
    "arms",
    "samplers",
    "sampling",
    "sampler_search",
    "editing",
    "observers",
)

__all__ = ["BENCHMARKS"]
