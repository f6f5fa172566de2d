"""Flows from a few fixed sensors: graph dynamics of the sensors, and an observer of the continuum between them.

Needs the extra `graph` (torch-geometric) where networks are made.
"""

from sciode.observers.arrays import Reading
from sciode.observers.attention import SensorAttention
from sciode.observers.climate import Climate, climate_of, fitted_climate, settled, suited_degree
from sciode.observers.continuum import Continuum, Fourier
from sciode.observers.dynamics import LatentDynamics, Latents
from sciode.observers.graphs import duplicates, edges_between, flattened, graph, outside_hull, spacing
from sciode.observers.law import QuadraticLaw
from sciode.observers.message_passing import Interaction
from sciode.observers.model import Design, Observed, ObserverModel, network
from sciode.observers.objective import Importance, Objective
from sciode.observers.observer import Observer, Prediction
from sciode.observers.scene import Scene, Span, embedded, scene
from sciode.observers.surface import chosen_order, chosen_stretch, surface_inverse, surface_rows, time_weights
from sciode.observers.waves import Exchange, projection_of, wave_numbers, waves_at
from sciode.observers.wiring import Wiring

__all__ = [
    "Climate",
    "Continuum",
    "Design",
    "Exchange",
    "Fourier",
    "Importance",
    "Interaction",
    "LatentDynamics",
    "Latents",
    "Objective",
    "Observed",
    "Observer",
    "ObserverModel",
    "Prediction",
    "QuadraticLaw",
    "Reading",
    "Scene",
    "SensorAttention",
    "Span",
    "Wiring",
    "chosen_order",
    "chosen_stretch",
    "climate_of",
    "duplicates",
    "edges_between",
    "embedded",
    "fitted_climate",
    "flattened",
    "graph",
    "network",
    "outside_hull",
    "projection_of",
    "scene",
    "settled",
    "spacing",
    "suited_degree",
    "surface_inverse",
    "surface_rows",
    "time_weights",
    "wave_numbers",
    "waves_at",
]
