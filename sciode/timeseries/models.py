"""The models of irregular series by name: one line each."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Literal, NamedTuple

from sciode.timeseries.attention import MTAND
from sciode.timeseries.controlled import NeuralCDE
from sciode.timeseries.free import NaiveSDE, NeuralODE
from sciode.timeseries.latent import LatentODE, LatentSDE
from sciode.timeseries.model import Form, SequenceModel
from sciode.timeseries.recurrent import GruD, OdeRnnModel
from sciode.timeseries.stable import StableSDE
from sciode.training import isolated_rng

__all__ = ["MODELS", "ModelKind", "build", "make"]


Family = Literal["stable SDE", "SDE", "ODE", "CDE", "recurrent", "attention"]


class ModelKind(NamedTuple):
    """A model by name: what makes it, what it is, where it is from, and what moves its state.

    make(channels, hidden, layers, static=S) -> SequenceModel, with form= too if `formed`. Tables that hold stochastic
    equations against the rest go by the family.
    """

    make: Callable[..., SequenceModel]
    family: Family
    summary: str
    source: str
    formed: bool = False

    @property
    def sde(self) -> bool:
        """Whether noise moves the state."""
        return self.family in ("stable SDE", "SDE")

    @property
    def reads(self) -> str:
        """Which half of a batch the model reads, `SequenceModel.reads`."""
        return getattr(self.make, "func", self.make).reads


_OH = "Oh, Lim, Kim: Stable neural SDEs in analyzing irregular time series data (2024)"

MODELS: dict[str, ModelKind] = {
    "lnsde": ModelKind(
        partial(StableSDE, equation="linear"), "stable SDE", "stable neural SDE, linear noise", _OH, formed=True
    ),
    "lsde": ModelKind(
        partial(StableSDE, equation="langevin"), "stable SDE", "stable neural SDE, Langevin", _OH, formed=True
    ),
    "gsde": ModelKind(
        partial(StableSDE, equation="geometric"), "stable SDE", "stable neural SDE, geometric", _OH, formed=True
    ),
    "nsde": ModelKind(NaiveSDE, "SDE", "naive neural SDE from the first value", "Tzen, Raginsky (2019)", formed=True),
    "node": ModelKind(NeuralODE, "ODE", "neural ODE from the first value", "Chen et al. (2018)"),
    "ncde": ModelKind(NeuralCDE, "CDE", "neural CDE on the Hermite path", "Kidger et al. (2020)"),
    "odernn": ModelKind(OdeRnnModel, "ODE", "ODE between readings, GRU at them", "Rubanova et al. (2019)"),
    "grud": ModelKind(GruD, "recurrent", "GRU with decay between readings", "Che et al. (2018)"),
    "latentode": ModelKind(LatentODE, "ODE", "ODE-RNN encoder, latent ODE", "Rubanova et al. (2019)"),
    "latentsde": ModelKind(LatentSDE, "SDE", "prior and posterior SDE with a path divergence", "Li et al. (2020)"),
    "mtand": ModelKind(MTAND, "attention", "attention over learned time embeddings", "Shukla, Marlin (2021)"),
}


def build(
    name: str,
    channels: int,
    hidden: int = 32,
    layers: int = 2,
    static: int = 0,
    form: Form = "clipped",
    seed: int = 0,
) -> SequenceModel:
    """Return a new model of a kind in `MODELS`, its weights drawn from the seed.

    channels: C of the series; hidden: width of the states; layers: depth of its networks, >= 1; static: S covariates;
    form: of the stable SDEs, passed over by models that have one form only. Raises ValueError for an unknown name.
    """
    with isolated_rng(seed):
        return make(name, channels, hidden, layers, static, form)


def kind_of(name: str) -> ModelKind:
    """The entry of `MODELS`. Raises ValueError for an unknown name, with the one that was meant."""
    if name not in MODELS:
        close = get_close_matches(name, MODELS, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no model is called {name!r}; {meant}there are {', '.join(MODELS)}")
    return MODELS[name]


def make(
    name: str, channels: int, hidden: int = 32, layers: int = 2, static: int = 0, form: Form = "clipped"
) -> SequenceModel:
    """As `build`, but the weights are drawn from torch's own generator: for networks that go on drawing from it."""
    kind = kind_of(name)
    return kind.make(channels, hidden, layers, static=static, **({"form": form} if kind.formed else {}))
