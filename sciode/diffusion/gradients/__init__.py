"""How a sample is differentiated: on one tape, by segments, backwards through exact inversion, by the adjoint ODE."""
