"""Our samplers behind the interface of diffusers' schedulers: `pipe.scheduler = SciodeScheduler.from_config(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.diffusers.configs import completed, is_flow, prediction_of, schedule_of
from sciode.diffusion.diffusers.spacing import Spaced, given_sigmas, given_timesteps, spaced
from sciode.diffusion.diffusers.stepwise import Stepwise, calls_of, program
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.registry import sampler as sampler_of
from sciode.diffusion.statistics import ModelStatistics
from sciode.diffusion.thresholding import Threshold

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
    from diffusers.utils.torch_utils import randn_tensor
except ImportError as fault:
    raise ImportError('diffusers is missing: pip install "sciode[diffusion]"') from fault

__all__ = ["SciodeScheduler"]

Generators = torch.Generator | list[torch.Generator] | None


class SciodeScheduler(SchedulerMixin, ConfigMixin):
    """Any sampler of ours with a grid, for any pipeline of diffusers.

        pipe.scheduler = SciodeScheduler.from_config(pipe.scheduler.config, sampler="unipc-2")

    - sampler: a name of `samplers()`; sampler_options: as in `sampler(name, **options)`. dpm++-2m is what guided models
      take well; dpm++-3m and unipc-3 for unguided ones and from 10 steps on. Samplers that take several evaluations a
      step show as many time steps (`order`), as diffusers' Heun does. Adaptive ones choose their steps as they go and
      are refused, as are those that draw before they first evaluate (edm-churn).
    - grid: a name of `GRIDS`, which then spans the whole table; None = what the other settings say.
    - `statistics`: set it to what `estimate_ems` gives, for dpm-v3.
    - All other settings are diffusers', with its meaning, and come from the config of the scheduler that is replaced:
      the table of betas, prediction_type, timestep_spacing and steps_offset, use_karras_sigmas, ..., shift and dynamic
      shifting of flows, clip_sample and thresholding, final_sigmas_type ("zero": the last evaluation is the data
      prediction, so that N steps of a multistep sampler are N evaluations).

    States are those of the network, not scaled: `scale_model_input` changes nothing. The table is float64, time steps
    are fractions where the grid says so, and states are kept in float32 at least between steps. What `step` is given is
    used where it is not what `step` returned (inpainting). Random draws: diffusers' randn_tensor of `generator`; with
    a list of generators a sample's noise does not depend on its batch.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers] + ["FlowMatchEulerDiscreteScheduler"]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        prediction_type: str = "epsilon",
        sampler: str = "dpm++-2m",
        sampler_options: dict[str, Any] | None = None,
        grid: str | None = None,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        final_sigmas_type: str = "zero",
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        use_beta_sigmas: bool = False,
        shift: float | None = None,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        shift_terminal: float | None = None,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int | None = 256,
        max_image_seq_len: int | None = 4096,
        invert_sigmas: bool = False,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
    ) -> None:
        self._schedule, self._prediction = schedule_of(self.config), prediction_of(self.config)
        self._sampler = _checked(sampler, sampler_options or {})
        if invert_sigmas:
            raise ValueError("invert_sigmas: samplers go from noise to data; use sciode.diffusion.invert")
        if final_sigmas_type not in ("zero", "sigma_min"):
            raise ValueError(f"final_sigmas_type: expected 'zero' or 'sigma_min', got {final_sigmas_type!r}")
        self.statistics: ModelStatistics | None = None
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        # As others of diffusers do before set_timesteps.
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1, dtype=torch.float32)
        self._spaced: Spaced | None = None
        self._plan: Plan | None = None
        self._forget()

    @classmethod
    def from_config(cls, config: Any, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler for the network that this config belongs to; keyword arguments are settings, sampler="unipc-2".

        What the config leaves open is what the class that it names takes for granted. Raises ValueError for networks
        with scaled inputs (EDM).
        """
        return super().from_config(completed(config), return_unused_kwargs, **kwargs)

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    @property
    def order(self) -> int:
        """Time steps, that is evaluations, of one step of the sampler."""
        return self._sampler.evaluations(2) - self._sampler.evaluations(1)

    @property
    def begin_index(self) -> int | None:
        """The index of the first time step, where a pipeline has set one."""
        return self._begin

    @property
    def step_index(self) -> int | None:
        """The index of the time step that comes next; None before the first."""
        return self._index

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha^2 of the table [T], float32."""
        return self._schedule.alpha(torch.arange(len(self), dtype=torch.float64)).square().float()

    @property
    def sigmas(self) -> Tensor:
        """sigma / alpha where steps begin (of flows: sigma), and at the end, float32."""
        if self._spaced is None:
            raise ValueError("sigmas: call set_timesteps first")
        times = torch.as_tensor(self._spaced.times)
        levels = self._schedule.sigma(times)
        levels = levels if is_flow(self.config) else levels / self._schedule.alpha(times)
        last = 0.0 if self._spaced.end is None else float(self._schedule.sigma(self._spaced.end))
        return torch.cat((levels, torch.tensor([last], dtype=torch.float64))).float()

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin in the middle of the grid, as image-to-image does. Raises ValueError between two steps of a sampler."""
        if begin_index != (self._begin or 0) or self._begun is not None:
            self._plan = self._planned(begin_index)
            self._forget()
        self._begin = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay out the steps: so many, or at these time steps of the network, or at these noise levels (see `spaced`).

        `timesteps` then holds one entry an evaluation. mu: the shift of flows with use_dynamic_shifting.
        """
        if sum(x is not None for x in (timesteps, sigmas)) > 1:
            raise ValueError("timesteps, sigmas: give one of them")
        if timesteps is not None:
            self._spaced = given_timesteps(self.config, timesteps)
        elif sigmas is not None:
            self._spaced = given_sigmas(self.config, self._schedule, sigmas, mu)
        elif num_inference_steps is not None:
            self._spaced = spaced(self.config, self._schedule, num_inference_steps, mu)
        else:
            raise ValueError("num_inference_steps: give it, or timesteps, or sigmas")
        self.num_inference_steps = len(self._spaced.times)
        self._plan = self._planned(0)
        self._begin = None
        self._forget()
        self.timesteps = torch.as_tensor(self._model_times(self._plan), dtype=torch.float32, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample: networks see it as it is."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """From the model's output [B, ...] at `sample` and `timestep` to where the model is to be called next.

        generator: of samplers that draw; variance_noise: the draw itself. eta is DDIM's: name the sampler instead. With
        twice the sample's channels the output's first half counts. Raises ValueError after the last time step.
        """
        if eta:
            raise ValueError("eta: give it to the sampler, sampler='ddim', sampler_options={'eta': ...}")
        if self._begun is None:
            self._begin_at(timestep, sample)
        begun = self._begun
        assert begun is not None and self._index is not None
        if begun.done:
            raise ValueError(f"step: all {len(self.timesteps)} time steps are taken; call set_timesteps again")
        if self._returned is None or sample is not self._returned or sample._version != self._version:
            begun.replace(sample)
        if model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]

        dtype = begun.state.dtype

        def normals(number: int) -> Tensor:
            if variance_noise is not None:
                return variance_noise.to(dtype)
            return randn_tensor(tuple(sample.shape), generator=generator, device=sample.device, dtype=dtype)

        found = begun.step(model_output, normals).to(sample.dtype)
        self._index += 1
        self._returned, self._version = found, found._version
        return SchedulerOutput(prev_sample=found) if return_dict else (found,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """alpha(t) x_0 + sigma(t) noise at time steps [B] or [1], fractions too."""
        alpha, sigma = self._level(timesteps, original_samples)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:
        """`add_noise`, by the name and with the arguments that pipelines of flows call it by."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """alpha(t) noise - sigma(t) x_0, what a v-prediction learns."""
        alpha, sigma = self._level(timesteps, sample)
        return alpha * noise - sigma * sample

    def _level(self, timesteps: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(timesteps).double().cpu().reshape(-1) / self._scale
        wide = [f(t).to(like).reshape(-1, *[1] * (like.ndim - 1)) for f in (self._schedule.alpha, self._schedule.sigma)]
        return wide[0], wide[1]

    @property
    def _scale(self) -> float:
        """The network's time step over ours."""
        return float(len(self)) if is_flow(self.config) else 1.0

    def _model_times(self, plan: Plan) -> np.ndarray:
        return np.array([call.node.t for call in calls_of(plan)], dtype=np.float64) * self._scale

    def _forget(self) -> None:
        self._begun: Stepwise | None = None
        self._index: int | None = None
        self._returned: Tensor | None = None
        self._version = 0
        if self._spaced is None:
            self._begin: int | None = None

    def _planned(self, begin: int) -> Plan:
        """The program from the step that begins with this time step."""
        if self._spaced is None:
            raise ValueError("set_begin_index: call set_timesteps first")
        steps, rest = divmod(begin, self.order)
        extra = {}
        if self._sampler.wants == "ems":
            if self.statistics is None:
                raise ValueError(f"sampler: {self._sampler.name} needs scheduler.statistics = estimate_ems(...)")
            extra = {"ems": self.statistics}
        low = 1 / len(self) if is_flow(self.config) else 0.0
        times = self._spaced.times[steps:]
        if len(times) == 0:
            raise ValueError(f"begin_index: there are {len(self.timesteps)} time steps, got {begin}")
        plan = program(self._sampler, self._schedule, Spaced(times, self._spaced.end), low, **extra)
        if begin:
            here = torch.as_tensor(self._model_times(plan), dtype=torch.float32)
            if rest or not torch.equal(here, self.timesteps[begin:].cpu()):
                raise ValueError(
                    f"begin_index: {self._sampler.name} cannot begin at time step {begin}: steps begin at multiples of "
                    f"{self.order}, and must not depend on those before them"
                )
        return plan

    def _begin_at(self, timestep: Any, sample: Tensor) -> None:
        """Take the first step; without a begin index it is the one with this time step."""
        if self._plan is None:
            raise ValueError("step: call set_timesteps first")
        index = self._begin
        if index is None:
            near = (self.timesteps[:: self.order].double().cpu() - float(timestep)).abs()
            index = int(near.argmin()) * self.order
            if float(near.min()) > 1e-3 * self._scale / len(self) * max(1.0, len(self) / 1000):
                raise ValueError(f"timestep: {float(timestep)} is none of scheduler.timesteps")
            if index:
                self._plan = self._planned(index)
        denoiser = Denoiser(_unused, self._schedule, self._prediction, threshold=_threshold(self.config))
        self._begun, self._index = Stepwise(self._plan, denoiser, sample), index


def _unused(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("the pipeline calls the model")


def _checked(name: str, options: dict[str, Any]) -> Sampler:
    row = sampler_of(name, **options)
    if isinstance(row, Adaptive):
        raise ValueError(
            f"sampler: {name} chooses its steps as it goes, and a pipeline asks for them beforehand; use it in "
            "sciode.diffusion.sample"
        )
    return row


def _threshold(config: Any) -> Threshold | None:
    if config["thresholding"]:
        return Threshold(config["dynamic_thresholding_ratio"], most=max(1.0, config["sample_max_value"]))
    return Threshold(None, limit=config["clip_sample_range"]) if config["clip_sample"] else None
