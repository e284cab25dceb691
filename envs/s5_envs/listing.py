"""Facts about each POPGym environment at a glance: spaces, lengths, rewards, scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from s5_envs.lanes import innermost
from s5_envs.registration import make, popgym_ids


@dataclass(frozen=True)
class EnvInfo:
    """One environment's line."""

    env_id: str
    observation: str
    """The environment's own observation space, before wrappers."""
    action: str
    """The action space."""
    previous_action: bool
    """Whether ``make`` appends the previous action and the first-step flag."""
    episode_length: int
    """The most steps of an episode."""
    reward_low: float
    """The lowest reward of one step."""
    reward_high: float
    """The highest reward of one step."""
    random_score: float
    """Mean return of uniformly random actions."""
    best_score: float
    """Mean return of the best play known, by a player who sees the hidden state (``s5_envs.optimal``)."""


@cache
def _scores() -> dict[str, dict[str, dict[str, float]]]:
    text = files("s5_envs").joinpath("scores.json").read_text(encoding="utf-8")
    scores: dict[str, dict[str, dict[str, float]]] = json.loads(text)["scores"]
    return scores


def registry_table() -> list[EnvInfo]:
    """Return a line for each of the 48 ids of POPGym.

    The scores are recorded by ``scripts/record_scores.py``.
    """
    return [_info(env_id) for env_id in popgym_ids()]


def _info(env_id: str) -> EnvInfo:
    made, params = make(env_id, previous_action=False)
    env = innermost(made)
    low, high = env.reward_range
    return EnvInfo(
        env_id=env_id,
        observation=repr(env.observation_space(params)).replace(", dtype=float32", ""),
        action=repr(env.action_space(params)).replace(", dtype=int32", "").replace(", dtype=float32", ""),
        previous_action=env.obs_requires_prev_action,
        episode_length=env.episode_length,
        reward_low=low,
        reward_high=high,
        random_score=_scores()[env_id]["random"]["mean"],
        best_score=_scores()[env_id]["best"]["mean"],
    )
