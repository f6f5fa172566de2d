"""Side-by-side benchmarks against other libraries: BENCHMARKS names them, a file each."""

BENCHMARKS = ("solvers", "engines", "epoch", "arms", "samplers", "samplers_mnist")

__all__ = ["BENCHMARKS"]
