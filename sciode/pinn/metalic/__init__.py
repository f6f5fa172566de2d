"""METALIC: learning from task to task which interface conditions to use, by contextual bandits (extra "pinn")."""

from sciode.pinn.metalic.arms import arms_of, place_of, said, varied
from sciode.pinn.metalic.bandit import Bandit, Play, Trained, learn
from sciode.pinn.metalic.rewards import Budget, reward_of, rewards, single_reward
from sciode.pinn.metalic.tasks import Task, draw_tasks

__all__ = [
    "Bandit",
    "Budget",
    "Play",
    "Task",
    "Trained",
    "arms_of",
    "draw_tasks",
    "learn",
    "place_of",
    "reward_of",
    "rewards",
    "said",
    "single_reward",
    "varied",
]
