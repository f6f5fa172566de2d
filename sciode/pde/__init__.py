"""Partial differential equations: problems as data, and the solvers on grids that others are measured against.

A field function maps one point x [d] to values [c]; batches are made by `torch.func.vmap`.
"""
