"""Solver search: the unified sampling framework as a program of decisions, and predictor-based search over them."""
