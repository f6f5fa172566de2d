"""Layers shared by the modules."""

from sciode.nn.mlp import mlp

__all__ = ["mlp"]
