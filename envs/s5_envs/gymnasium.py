"""gymnasium's interface to every environment here, single and batched.

Importing this module (``import s5_envs`` does) makes each of this package's ids known to gymnasium, under its
namespace and with a version: ``gymnasium.make("s5_envs/RepeatPreviousHard-v0")``. Nothing is built before
it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from s5_envs.adapt import adapt
from s5_envs.interface import AnyEnvironment, Info, PyTree
from s5_envs.lanes import Lanes, can_render
from s5_envs.registration import make, registered_ids

NAMESPACE = "s5_envs"
RENDER_MODES = ("ansi", "rgb_array")
RENDER_FPS = 8
_VERSION = re.compile(r"-v\d+$")


class GymnaxEnv(gymnasium.Env[PyTree, PyTree]):
    """One gymnax 1.x environment behind gymnasium's interface.

    Observations are numpy arrays of the space's type (float32 for all of this package's environments). An
    environment of this package shows the end of an episode until ``reset`` begins the next.

    Args:
        env: an id for ``s5_envs.make``, or any gymnax 1.x environment, wrapped or not.
        params: the environment's parameters, by default its own.
        render_mode: None, ``"ansi"`` (a string) or ``"rgb_array"`` (``(height, width, 3)`` uint8).
        **config: further arguments for ``s5_envs.make``, where ``env`` is an id.

    Raises:
        ValueError: for an unknown id, argument or render mode.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        env: str | AnyEnvironment,
        params: PyTree = None,
        *,
        render_mode: str | None = None,
        **config: Any,
    ) -> None:
        env, params = _build(env, params, config)
        self.metadata = _metadata(env)
        self.render_mode = _checked_render_mode(env, render_mode)
        self._lanes = Lanes(env, params, 1)
        self.action_space = self._lanes.single_action_space
        self.observation_space = self._lanes.single_observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, Info]:
        """Begin an episode.

        Args:
            seed: from which everything follows until the next seed; None carries on.
            options: none are known.
        """
        super().reset(seed=seed)
        if seed is None and not self._lanes.is_started:
            seed = _random_seed(self.np_random)
        return _lane(self._lanes.reset(None if seed is None else _seeds([seed])), 0), {}

    def step(self, action: PyTree) -> tuple[PyTree, float, bool, bool, Info]:
        """Take one step: ``obs, reward, terminated, truncated, info``.

        Raises:
            ResetNeeded: before the first ``reset`` and after the end of an episode.
            ValueError: for an action outside the space (a Box's bounds are the environment's own business).
        """
        self._check_started()
        if self._lanes.ended[0]:
            raise ResetNeeded(f"{self._name}: the episode is over; call reset() before the next step()")
        t = self._lanes.step(self._lanes.check_action(action))
        return (
            _lane(t.obs, 0),
            float(t.reward[0]),
            bool(t.terminated[0]),
            bool(t.truncated[0]),
            _single_info(t.info),
        )

    # gymnasium declares a type variable that nothing binds.
    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """Draw the state; None, with a warning, where no ``render_mode`` was chosen."""
        if self.render_mode is None:
            _warn_no_render_mode(self._name)
            return None
        self._check_started()
        return self._lanes.render(0, self.render_mode)

    @property
    def _name(self) -> str:
        return self._lanes.env.name

    def _check_started(self) -> None:
        if not self._lanes.is_started:
            raise ResetNeeded(f"{self._name}: call reset() first")


class GymnaxVectorEnv(gymnasium.vector.VectorEnv[PyTree, PyTree, np.ndarray]):
    """Many episodes of one gymnax 1.x environment, stepped by one compiled call.

    Args:
        env: an id for ``s5_envs.make``, or any gymnax 1.x environment, wrapped or not.
        params: the environment's parameters, by default its own.
        num_envs: how many episodes run side by side.
        autoreset_mode: what happens when an episode ends, an ``AutoresetMode`` or its name.
            ``"NEXT_STEP"`` (RLlib): the final observation is returned, and the next ``step`` ignores that
            environment's action and returns the next episode's first observation with reward 0.
            ``"SAME_STEP"`` (Stable-Baselines3): the next episode's first observation is returned at once, the
            final one is in ``info["final_obs"]``, its info in ``info["final_info"]``.
            ``"DISABLED"``: finished environments must be reset with ``options={"reset_mask": mask}``.
        render_mode: None, ``"ansi"`` (strings) or ``"rgb_array"`` (``(height, width, 3)`` uint8 each).
        max_episode_steps: a time limit in place of the environment's.
        **config: further arguments for ``s5_envs.make``, where ``env`` is an id.

    Raises:
        ValueError: for an unknown id, argument, mode or render mode, or ``num_envs`` below 1.
    """

    metadata = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        env: str | AnyEnvironment,
        params: PyTree = None,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **config: Any,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ValueError(f"num_envs must be a positive integer, got {num_envs!r}")
        self.autoreset_mode = _checked_autoreset_mode(autoreset_mode)
        env, params = _build(env, params, config)
        self.metadata = {**_metadata(env), "autoreset_mode": self.autoreset_mode}
        self.render_mode = _checked_render_mode(env, render_mode)
        self._lanes = Lanes(env, _with_time_limit(params, max_episode_steps), int(num_envs))
        self.num_envs = int(num_envs)
        self.single_action_space = self._lanes.single_action_space
        self.single_observation_space = self._lanes.single_observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = self._lanes.observation_space

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[PyTree, Info]:
        """Begin an episode in every environment.

        Args:
            seed: environment i gets ``seed + i``, or ``seed[i]`` of a sequence; None carries on.
            options: ``{"reset_mask": mask}`` with ``(num_envs,)`` bool leaves the environments alone where
                the mask is False, as in gymnasium's ``SyncVectorEnv``.

        Raises:
            ValueError: for a wrong number of seeds or a wrong mask.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        mask = self._checked_mask((options or {}).get("reset_mask"))
        if seed is None and self._lanes.is_started:
            return self._lanes.reset(mask=mask), {}
        if seed is None or isinstance(seed, (int, np.integer)):
            first = _random_seed(self.np_random) if seed is None else int(seed)
            seed = [first + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{self._name}: expected {self.num_envs} seeds, got {len(seed)}")
        seeds = _seeds([_random_seed(self.np_random) if s is None else s for s in seed])
        return self._lanes.reset(seeds, mask), {}

    def step(self, actions: PyTree) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one step in every environment: ``obs, rewards, terminations, truncations, infos``.

        Raises:
            ResetNeeded: before the first ``reset``, and with ``"DISABLED"`` while a finished environment has
                not been reset.
            ValueError: for an action outside the space (a Box's bounds are the environment's own business).
        """
        self._check_started()
        actions = self._lanes.check_actions(actions)
        ended = self._lanes.ended
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            t = self._lanes.step(actions, begin=ended)
            return t.obs, t.reward, t.terminated, t.truncated, _masked_info(t.info, ~ended)
        if self.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            raise ResetNeeded(
                f"{self._name}: environments {np.flatnonzero(ended).tolist()} are finished; reset them with "
                'options={"reset_mask": mask} before the next step()'
            )
        t = self._lanes.step(actions)
        if self.autoreset_mode is AutoresetMode.DISABLED:
            return t.obs, t.reward, t.terminated, t.truncated, _masked_info(t.info, ~ended)
        done = t.terminated | t.truncated
        info = _masked_info(t.info, ~done)
        if done.any():
            self._lanes.begin_next()
            info["final_obs"], info["_final_obs"] = _final_obs(t.obs, done), done
            info["final_info"], info["_final_info"] = _masked_info(t.info, done), done
        return t.next_obs, t.reward, t.terminated, t.truncated, info

    # As above.
    def render(self) -> tuple[str | np.ndarray, ...] | None:  # type: ignore[override]
        """Draw every environment; None, with a warning, where no ``render_mode`` was chosen."""
        if self.render_mode is None:
            _warn_no_render_mode(self._name)
            return None
        self._check_started()
        return tuple(self._lanes.render(i, self.render_mode) for i in range(self.num_envs))

    @property
    def _name(self) -> str:
        return self._lanes.env.name

    def _check_started(self) -> None:
        if not self._lanes.is_started:
            raise ResetNeeded(f"{self._name}: call reset() first")

    def _checked_mask(self, given: Any) -> np.ndarray | None:
        if given is None:
            return None
        mask: np.ndarray = np.asarray(given)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"{self._name}: reset_mask must be ({self.num_envs},) bool with a True in it, "
                f"got {mask.dtype} {mask.shape} with {int(np.count_nonzero(mask))} set"
            )
        if not self._lanes.is_started and not mask.all():
            raise ResetNeeded(f"{self._name}: the first reset() begins all, not those of a reset_mask")
        return mask


def gymnasium_name(env_id: str) -> str:
    """Return the name by which gymnasium knows an id: a namespace, and a version where the id has none."""
    return f"{NAMESPACE}/{env_id}" if _VERSION.search(env_id) else f"{NAMESPACE}/{env_id}-v0"


def register_ids() -> None:
    """Make this package's ids known to gymnasium; those that are already stay as they are.

    Call it again after adding environments with ``s5_envs.register``.
    """
    for env_id in registered_ids():
        name = gymnasium_name(env_id)
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"{__name__}:GymnaxEnv",
                vector_entry_point=f"{__name__}:GymnaxVectorEnv",
                kwargs={"env": env_id},
            )


def _build(
    env: str | AnyEnvironment, params: PyTree, config: dict[str, Any]
) -> tuple[AnyEnvironment, PyTree]:
    if isinstance(env, str):
        made, default = make(env, **config)
        return made, default if params is None else params
    if config:
        raise ValueError(f"{env.name} is built already and takes no argument {next(iter(config))!r}")
    params = env.default_params if params is None else params
    return adapt(env, params), params


def _with_time_limit(params: PyTree, limit: int | None) -> PyTree:
    if limit is None:
        return params
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise ValueError(f"max_episode_steps must be a positive integer, got {limit!r}")
    return params.replace(max_steps_in_episode=int(limit))


def _metadata(env: AnyEnvironment) -> dict[str, Any]:
    return {"render_modes": list(RENDER_MODES) if can_render(env) else [], "render_fps": RENDER_FPS}


def _checked_render_mode(env: AnyEnvironment, mode: str | None) -> str | None:
    known = _metadata(env)["render_modes"]
    if mode is not None and mode not in known:
        raise ValueError(f"{env.name}: unknown render_mode {mode!r}; expected None or one of {known}")
    return mode


def _checked_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    for known in AutoresetMode:
        if mode in (known, known.name, known.value):
            return known
    names = ", ".join(known.name for known in AutoresetMode)
    raise ValueError(f"unknown autoreset_mode {mode!r}; expected one of {names}")


def _warn_no_render_mode(name: str) -> None:
    gymnasium.logger.warn(f"{name}: render() draws nothing without a render_mode, one of {RENDER_MODES}")


def _random_seed(rng: np.random.Generator) -> int:
    # Room above it, so that seed + i stays within 64 bits.
    return int(rng.integers(2**62))


def _seeds(seeds: Sequence[int]) -> np.ndarray:
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise ValueError(f"a seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    return np.array([int(s) for s in seeds], np.uint64)


def _lane(batched: PyTree, i: int) -> PyTree:
    """Return lane ``i`` of a batched observation."""
    if isinstance(batched, dict):
        return {name: _lane(value, i) for name, value in batched.items()}
    if isinstance(batched, tuple):
        return tuple(_lane(value, i) for value in batched)
    return batched[i]


def _single_info(info: Info) -> Info:
    """Return the only lane's info, with Python scalars."""
    single: Info = {}
    for name, value in info.items():
        if isinstance(value, dict):
            single[name] = _single_info(value)
        else:
            single[name] = value[0].item() if value.ndim == 1 else value[0]
    return single


def _masked_info(info: Info, mask: np.ndarray) -> Info:
    """Return gymnasium's batched info: each value with zeros outside the mask, and the mask as ``_name``."""
    if not mask.any():
        return {}
    masked: Info = {}
    for name, value in info.items():
        if isinstance(value, dict):
            masked[name] = _masked_info(value, mask)
        else:
            column = mask.reshape((-1,) + (1,) * (value.ndim - 1))
            masked[name] = np.where(column, value, np.zeros_like(value))
        masked[f"_{name}"] = mask.copy()
    return masked


def _final_obs(obs: PyTree, done: np.ndarray) -> np.ndarray:
    """Return ``(num_envs,)`` objects: the final observation where ``done``, None elsewhere."""
    final = np.full(len(done), None, dtype=object)
    for i in np.flatnonzero(done).tolist():
        final[i] = _lane(obs, i)
    return final


register_ids()
