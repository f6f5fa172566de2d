"""One file a result table, resumable row by row: EXPERIMENTS names those that `sciode train` runs."""

EXPERIMENTS = (
    "mnist_ode", "physionet_latent_ode", "spiral_sde", "mnist_sde", "cnf",
    "hopper_forecast", "physionet_interpolation", "physionet_mortality", "uea",
    "insr_advection", "insr_elastic", "insr_taylor_green", "insr_two_scale",
    "pinn_families", "pinn_rivals", "metalic",
    "observer_flows", "prose", "prose_data", "prose_doubts", "prose_fields", "prose_field_fits", "prose_speed",
    "mnist_diffusion", "few_steps",
)  # fmt: skip

__all__ = ["EXPERIMENTS"]
