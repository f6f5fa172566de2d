"""Side-by-side benchmarks against other libraries: BENCHMARKS names them, a file each."""

BENCHMARKS = (
    "solvers", "engines", "epoch", "arms", "observers",
    "samplers", "samplers_mnist", "sampling", "sampler_search", "sampler_search_mnist",
    "editing", "editing_mnist",
)  # fmt: skip

__all__ = ["BENCHMARKS"]
