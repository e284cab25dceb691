"""The environments of `s5_envs` for RLlib, and the one thing RLlib demands of any vector environment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from ray.tune.registry import register_env

from s5_adapters.rllib._process import settle_process

__all__ = ["check_autoreset", "env_creator", "env_names", "register_envs"]


def register_envs() -> tuple[str, ...]:
    """Make every `s5_envs` id an environment of RLlib's: `config.environment("RepeatPreviousEasy")`.

    They go by `s5_envs`' name and by gymnasium's, `"s5_envs/RepeatPreviousEasy-v0"`. `env_config` holds
    arguments of `s5_envs.make`. With `env_runners(gym_env_vectorize_mode="vector_entry_point")`, which
    `S5PPOConfig` sets by itself, all of a runner's environments are stepped by one compiled call.

    Call it again after `s5_envs.register`.

    Returns:
        the names.
    """
    settle_process()
    from s5_envs.gymnasium import register_ids  # gymnax computes when it is imported

    register_ids()
    for name, env_id in env_names().items():
        register_env(name, env_creator(env_id))
    return tuple(env_names())


def env_names() -> dict[str, str]:
    """Return each name that `register_envs` gives, with its `s5_envs` id."""
    settle_process()
    import s5_envs
    from s5_envs.gymnasium import gymnasium_name

    ids = s5_envs.registered_ids()
    return {**{env_id: env_id for env_id in ids}, **{gymnasium_name(env_id): env_id for env_id in ids}}


def env_creator(
    env_id: str,
) -> Callable[[Mapping[str, Any]], gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]]:
    """Return what `ray.tune.register_env` takes: a function of RLlib's env context.

    Called with `num_envs` in it, as RLlib does where the vectorize mode is `"vector_entry_point"`, the
    function makes a vector environment, otherwise a single one.
    """
    return functools.partial(_create, env_id)


def _create(
    env_id: str, context: Mapping[str, Any]
) -> gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]:
    settle_process()
    from s5_envs.gymnasium import GymnaxEnv, GymnaxVectorEnv

    config = dict(context)
    num_envs = config.pop("num_envs", None)
    if num_envs is None:
        config.pop("autoreset_mode", None)
        return GymnaxEnv(env_id, **config)
    env = GymnaxVectorEnv(env_id, num_envs=num_envs, **config)
    check_autoreset(env)
    return env


def check_autoreset(env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Refuse a vector environment that does not begin its next episode in the step after the end of one.

    RLlib takes the observation that comes with the end for the finished episode's last, and drops the step
    after it. An environment that resets within the same step thus loses its first step and trains on wrong
    values, without a word from RLlib.

    Raises:
        ValueError: the environment's `metadata["autoreset_mode"]` is not NEXT_STEP, or there is none.
    """
    mode = (env.metadata or {}).get("autoreset_mode")
    if getattr(mode, "value", mode) not in (AutoresetMode.NEXT_STEP.value, "next_step"):
        name = type(getattr(env, "unwrapped", env)).__name__
        raise ValueError(
            f"{name}: got metadata['autoreset_mode'] {mode}, expected AutoresetMode.NEXT_STEP: with any "
            "other RLlib mixes episodes up without noticing; make the environment with "
            "autoreset_mode=AutoresetMode.NEXT_STEP"
        )
