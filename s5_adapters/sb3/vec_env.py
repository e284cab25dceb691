"""JAX environments as a Stable-Baselines3 `VecEnv`: all of them stepped by one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from s5_adapters.core.network.spaces import ACTION_MASK, has_action_mask
from s5_adapters.torch_bridge import settle_jax

__all__ = ["JaxVecEnv"]

_MASKS = "action_masks"
"""The method's name in sb3-contrib."""


class JaxVecEnv(VecEnv):
    """Any `s5_envs` or gymnax 1.x environment, `num_envs` copies of it, one jitted call a step.

    An environment that ends is reset within the same step, as SB3 expects: `obs` is the next episode's first
    observation and `infos[i]["terminal_observation"]` the one that the step led to. An episode that ran into
    its time limit and did not also terminate has `infos[i]["TimeLimit.truncated"] = True`, so SB3 bootstraps
    from its final value. Where a trial of a task ended (`s5_envs.Trials`), `infos[i]` has its `"trial"`, from
    0, and its `"trial_return"`. Wrap in SB3's `VecMonitor` for episode returns and in `VecNormalize` as
    usual.

    Where observations come with an `action_mask` (`action_mask=True`, or an environment of yours), SB3 sees
    the rest of them, and `env_method("action_masks")` gives the masks, as `S5MaskableRecurrentPPO` asks.

    Args:
        env: an id for `s5_envs.make`, or a gymnax 1.x environment.
        num_envs: copies stepped together.
        seed: environment i starts from `seed + i`; `VecEnv.seed`, which SB3 calls with a model's seed,
            replaces it. The same seeds and actions give the same episodes, whatever `num_envs`.
        params: the environment's parameters, by default its own.
        render_mode: `"rgb_array"` for environments that can be drawn, or None.
        **config: further arguments for `s5_envs.make`, where `env` is an id.

    Raises:
        RuntimeError: in a process started by fork, where the first JAX call would hang for ever.
        ValueError: for an unknown id, argument or render mode, or `num_envs` below 1.
    """

    def __init__(
        self,
        env: str | Any,
        num_envs: int,
        *,
        seed: int = 0,
        params: Any = None,
        render_mode: str | None = None,
        **config: Any,
    ) -> None:
        """See the class."""
        settle_jax()
        from s5_envs.gymnasium import GymnaxVectorEnv  # gymnax computes when it is imported

        self.batch = GymnaxVectorEnv(
            env, params, num_envs, autoreset_mode="SAME_STEP", render_mode=render_mode, **config
        )
        self.render_mode = render_mode
        self.metadata = self.batch.metadata
        space: Any = self.batch.single_observation_space
        self._masks: np.ndarray | None = None
        if has_action_mask(space):
            self._masks = np.ones((num_envs, *space.spaces[ACTION_MASK].shape), bool)
            space = self._without_mask(space)
        super().__init__(num_envs, space, self.batch.single_action_space)
        self._seeds = [seed + i for i in range(num_envs)]
        self._actions: np.ndarray | None = None

    def reset(self) -> VecEnvObs:
        """Start every environment anew: from the seeds where some were set since the last call, else onwards.

        Returns:
            observations, `(num_envs, *obs_shape)` in the observation space's dtype.

        Raises:
            ValueError: options were set; JAX environments take none.
        """
        if any(self._options):
            raise ValueError(f"JaxVecEnv: JAX environments take no reset options, got {self._options[0]}")
        obs: VecEnvObs = self.batch.reset(seed=None if None in self._seeds else self._seeds)[0]
        self._reset_seeds()
        return self._seen(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the next step's actions, `(num_envs, *action_shape)`, copied."""
        self._actions = np.array(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step.

        Returns:
            obs `(num_envs, *obs_shape)`, rewards `(num_envs,)` float32, dones `(num_envs,)` bool, one info
            dictionary per environment.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
            ValueError: for actions of another shape, or that do not exist.
        """
        obs, rewards, terminated, truncated, info = self.batch.step(self._actions)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = self._without_mask(info["final_obs"][i])
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        for told in (info, info.get("final_info", {})):
            for i in np.flatnonzero(told.get("trial_ended", False)):
                infos[i]["trial"] = int(told["trial"][i])
                infos[i]["trial_return"] = float(told["trial_return"][i])
        return self._seen(obs), np.array(rewards), dones, infos

    def _seen(self, obs: VecEnvObs) -> VecEnvObs:
        """Keep the masks of observations, and return the rest."""
        if self._masks is not None:
            assert isinstance(obs, dict)
            self._masks = np.asarray(obs[ACTION_MASK], bool)
        seen: VecEnvObs = self._without_mask(obs)
        return seen

    def _without_mask(self, whole: Any) -> Any:
        """Return a Dict space or its value without the mask: the only other part, or a Dict of the others."""
        if self._masks is None:
            return whole
        parts = whole.spaces if isinstance(whole, spaces.Dict) else whole
        others = {name: part for name, part in parts.items() if name != ACTION_MASK}
        if len(others) == 1:
            return next(iter(others.values()))
        return spaces.Dict(others) if isinstance(whole, spaces.Dict) else others

    def close(self) -> None:
        """Let go of the environments."""
        self.batch.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environments' batch, the same for all, or each one's `action_masks`."""
        if attr_name == _MASKS and self._masks is not None:
            return [self._masks[i] for i in self._get_indices(indices)]
        return [getattr(self.batch, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: a JAX environment is immutable and compiled."""
        raise NotImplementedError(
            f"JaxVecEnv: cannot set {attr_name!r}: JAX environments are immutable; pass it to JaxVecEnv(...)"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Return `action_masks()` of each where there are masks, and refuse anything else.

        A JAX environment's methods are functions of a state that it does not hold.
        """
        if method_name == _MASKS and self._masks is not None:
            return self.get_attr(_MASKS, indices)
        raise NotImplementedError(
            f"JaxVecEnv: cannot call {method_name!r} on one environment: all are stepped by one compiled call"
        )

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Return False for each: no gymnasium wrapper is inside."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return one `(H, W, 3)` uint8 picture per environment, with `render_mode="rgb_array"`."""
        pictures: Any = self.batch.render() if self.render_mode == "rgb_array" else None
        return [None] * self.num_envs if pictures is None else list(pictures)
