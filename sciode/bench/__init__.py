"""Side-by-side benchmarks against other libraries: one file a benchmark, named by BENCHMARKS; the rest are its parts."""

BENCHMARKS = ("solvers",)

__all__ = ["BENCHMARKS"]
