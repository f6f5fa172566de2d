"""Side-by-side benchmarks against other libraries: BENCHMARKS names them, a file each."""

BENCHMARKS = ("solvers",)

__all__ = ["BENCHMARKS"]
