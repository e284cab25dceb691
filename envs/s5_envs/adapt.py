"""Environments from elsewhere: held to this package's interface, adapted where that is safe, else refused.

What they give is looked at once, when they are built, by tracing alone: nothing is compiled or run.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import spaces
from s5_envs.interface import AnyEnvironment, PyTree, Step
from s5_envs.wrappers import Wrapper

_VALUES = "obs, state, reward, terminated, truncated, info"


def adapt(
    env: AnyEnvironment, params: PyTree = None, *, name: str | None = None, always: bool = False
) -> AnyEnvironment:
    """Return an environment that does what gymnax 1.x's interface says, ``env`` itself where it does.

    Adapted are: gymnax 0.x's ``step``, which gives ``obs, state, reward, done, info`` (``done`` is taken for
    ``terminated``, with a warning, and a final observation is not known); rewards and flags of one element;
    flags that are numbers; observations whose shape has other axes of length 1 than their space; Dict
    observations in a dataclass; gymnasium's spaces. With ``jax_enable_x64`` the environment computes in 32
    bits as it does without, so its episodes are the same.

    Args:
        env: an environment; in this package's wrappers, the innermost is adapted.
        params: its parameters, by default its own.
        name: what messages call it, by default its name.
        always: wrap an environment from elsewhere even where it needs nothing now, so that it goes on
            working when x64 is switched on later.

    Raises:
        ValueError: one line that names the environment and what is wrong: ``reset`` or ``step`` fail or give
            another number of values, an observation that is not of its space, a state that changes its
            structure, shapes or dtypes, a reward or flag that is not a number, a space of another kind.
    """
    if isinstance(env, Wrapper) and not isinstance(env, Adapted):
        inner = adapt(env.env, params, name=name, always=always)
        return env if inner is env.env else dataclasses.replace(env, env=inner)
    if isinstance(env, Adapted) or type(env).__module__.partition(".")[0] == __package__:
        return env
    adapted = Adapted(env)
    name = adapted.name if name is None else name
    with narrow():
        exact = _Inspection(name, env, params).is_exact()
    return env if exact and not always and not is_64_bit() else adapted


def is_64_bit() -> bool:
    """Tell whether ``jax_enable_x64`` is on."""
    # JAX makes its options at run time.
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def narrow() -> AbstractContextManager[Any]:
    """Return a context in which JAX computes in 32 bits, whatever ``jax_enable_x64`` says outside."""
    context: AbstractContextManager[Any] = jax.enable_x64(False)
    return context


@dataclass(frozen=True)
class Adapted(Wrapper):
    """An environment from elsewhere behind gymnax 1.x's interface; ``adapt`` makes it, and checks."""

    @property
    def name(self) -> str:
        """The environment's name, or its class's."""
        return _name_of(self.env)

    def action_space(self, params: PyTree = None) -> spaces.AnySpace:
        """Return the space of actions, as one of this package's."""
        with narrow():
            return spaces.standard(super().action_space(params))

    def observation_space(self, params: PyTree = None) -> spaces.AnySpace:
        """Return the space of observations, as one of this package's."""
        with narrow():
            return spaces.standard(super().observation_space(params))

    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree]:
        """Begin an episode: ``obs, state``."""
        params = _in_32_bits(self.default_params if params is None else params)
        with narrow():
            obs, state = self.env.reset(key, params)
            return self._shaped(obs), state

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step, with automatic reset: ``obs, state, reward, terminated, truncated, info``."""
        params, action = _in_32_bits((self.default_params if params is None else params, action))
        with narrow():
            obs, state, reward, *flags, info = self.env.step(key, state, action, params)
            terminated, truncated = flags if len(flags) == 2 else (flags[0], False)
            obs = self._shaped(obs)
            final = self._shaped(info["final_observation"]) if "final_observation" in info else obs
            reward = jnp.reshape(reward, ()).astype(jnp.float32)
            terminated, truncated = (jnp.reshape(flag, ()).astype(bool) for flag in (terminated, truncated))
        info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": final}
        return obs, state, reward, terminated, truncated, info

    def _shaped(self, obs: PyTree) -> PyTree:
        space, _ = self._static_spaces()
        return _shaped(spaces.standard(space), obs)


class _Inspection:
    """A traced look at an environment; every method raises the line that says what is wrong."""

    def __init__(self, name: str, env: AnyEnvironment, params: PyTree):
        self.name, self.env = name, env
        self._call("hash", lambda: hash(env))
        default = self._call("default_params", lambda: env.default_params)
        self.params = default if params is None else params
        own = [
            self._call(f"{kind}_space", getattr(env, f"{kind}_space", None), self.params) for kind in _KINDS
        ]
        self.observation_space = self._standard("observation", own[0])
        self.action_space = self._action_space(own[1])
        self._is_exact = own == [self.observation_space, self.action_space]

    def is_exact(self) -> bool:
        """Tell whether nothing needs to be adapted."""
        self._step(self._reset())
        return self._is_exact

    def _reset(self) -> PyTree:
        """Look at a reset and return the state."""
        given = self._traced("reset", self.env.reset, jax.random.key(0))
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise self._error(f"reset gives {_count(given)}, expected two: obs, state")
        self._observation("reset gives an observation", given[0])
        return given[1]

    def _step(self, state: PyTree) -> None:
        """Look at a step."""
        action = jax.ShapeDtypeStruct(self.action_space.shape, self.action_space.dtype)
        given = self._traced("step", self.env.step, jax.random.key(0), state, action)
        if not isinstance(given, (tuple, list)) or len(given) not in (5, 6):
            raise self._error(f"step gives {_count(given)}, expected six: {_VALUES}")
        obs, after, reward, *flags, info = given
        self._observation("step gives an observation", obs)
        self._state(state, after)
        self._number("reward", reward, jnp.float32)
        for name, flag in zip(
            ("terminated", "truncated") if len(flags) == 2 else ("done",), flags, strict=True
        ):
            self._number(name, flag, jnp.bool_)
        if not isinstance(info, Mapping):
            raise self._error(f"step gives {_describe(info)} for its last value, expected a dict, info")
        if "final_observation" in info:
            self._observation("step gives a final_observation", info["final_observation"])
        elif len(flags) == 2:
            raise self._error("step's info has no final_observation, what is seen before an automatic reset")
        if len(flags) == 1:
            self._is_exact = False
            warnings.warn(
                f"{self.name}: step gives gymnax 0.x's five values, so its done is taken for terminated: "
                "an end by a time limit is not told from the task's own",
                stacklevel=6,
            )

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{self.name}: {what}")

    def _call(self, what: str, call: Any, *args: Any) -> Any:
        """Call what belongs to the environment, where anything can go wrong."""
        try:
            return call(*args)
        except Exception as error:
            raise self._error(f"{what} fails with {_first_line(error)}") from error

    def _traced(self, what: str, method: Callable[..., Any], *args: Any) -> Any:
        return self._call(what, jax.eval_shape, lambda *args: method(*args, self.params), *args)

    def _standard(self, kind: str, space: Any) -> spaces.AnySpace:
        try:
            found = spaces.standard(space)
        except (TypeError, ValueError) as error:
            raise self._error(f"{kind} space: {_first_line(error, named=False)}") from error
        own: spaces.AnySpace = space
        return own if _same(found, space) else found

    def _action_space(self, space: Any) -> spaces.ArraySpace:
        found = self._standard("action", space)
        if isinstance(found, (spaces.Dict, spaces.Tuple)):
            raise self._error(f"action space {_shortened(space)}, expected Discrete, MultiDiscrete or Box")
        return found

    def _observation(self, what: str, obs: PyTree) -> None:
        fault, is_exact = _misfit(self.observation_space, obs)
        if fault:
            raise self._error(f"{what} {fault}")
        self._is_exact &= is_exact

    def _state(self, before: PyTree, after: PyTree) -> None:
        was: object = jax.tree.structure(before)
        became: object = jax.tree.structure(after)
        if was != became:
            raise self._error(f"step gives a state of {_shortened(became)}, reset one of {_shortened(was)}")
        leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        for (path, old), new in leaves:
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise self._error(
                    f"step makes state{jax.tree_util.keystr(path)} {_describe(new)}, reset made it "
                    f"{_describe(old)}: a state must keep its shapes and dtypes"
                )

    def _number(self, what: str, value: Any, dtype: Any) -> None:
        if not _is_array(value) or math.prod(value.shape) != 1 or not _is_real(value):
            expected = f"expected a {np.dtype(dtype).name} scalar"
            raise self._error(f"step gives a {what} {_describe(value)}, {expected}")
        self._is_exact &= value.shape == () and (value.dtype == dtype or dtype == jnp.float32)


_KINDS = ("observation", "action")


def _misfit(space: spaces.AnySpace, obs: PyTree) -> tuple[str | None, bool]:
    """Say what keeps a traced observation out of its space, None if nothing; and whether it fits as it is."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts, is_exact = _parts(space, obs)
        if parts is None:
            return f"{_describe(obs)}, expected {_composite(space)}", False
        for name, part, value in parts:
            fault, fits = _misfit(part, value)
            if fault:
                return f"whose part {name} is {fault}", False
            is_exact &= fits
        return None, is_exact
    shape, kind = tuple(space.shape), np.dtype(space.dtype)
    expected = f"expected {kind.name}{list(shape)} as its observation_space says"
    if not _is_array(obs) or not _is_real(obs) or _squeezed(obs.shape) != _squeezed(shape):
        return f"{_describe(obs)}, {expected}", False
    # gymnax's Catch says integers and gives floats; but an image's scale is known by its dtype.
    counts = not isinstance(space, spaces.Box) or kind == np.uint8
    if counts and jnp.issubdtype(obs.dtype, jnp.floating):
        return f"{_describe(obs)}, {expected}", False
    return None, tuple(obs.shape) == shape and not _is_wide_image(space, obs)


def _parts(
    space: spaces.Dict | spaces.Tuple, obs: PyTree
) -> tuple[list[tuple[str | int, spaces.AnySpace, PyTree]] | None, bool]:
    """Return name, space and value of each part, None where the parts are others; and whether it is plain."""
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, (tuple, list)) or len(obs) != len(space.spaces):
            return None, False
        return list(zip(range(len(obs)), space.spaces, obs, strict=True)), type(obs) is tuple
    if isinstance(obs, Mapping) and sorted(obs) != sorted(space.spaces):
        return None, False
    if not isinstance(obs, Mapping) and not all(hasattr(obs, str(name)) for name in space.spaces):
        return None, False
    named: list[tuple[str | int, spaces.AnySpace, PyTree]] = [
        (name, space.spaces[name], spaces.part_of(obs, name)) for name in sorted(space.spaces)
    ]
    return named, isinstance(obs, Mapping)


def _composite(space: spaces.Dict | spaces.Tuple) -> str:
    if isinstance(space, spaces.Tuple):
        return f"a tuple of {len(space.spaces)} as its observation_space says"
    return f"a dict of {', '.join(map(str, sorted(space.spaces)))} as its observation_space says"


def _shaped(space: spaces.AnySpace, obs: PyTree) -> PyTree:
    """Return an observation that ``_misfit`` found nothing wrong with in its space's shapes and structure."""
    if isinstance(space, spaces.Dict):
        return {name: _shaped(part, spaces.part_of(obs, name)) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_shaped(part, value) for part, value in zip(space.spaces, obs, strict=True))
    return jnp.reshape(obs, tuple(space.shape)).astype(jnp.uint8 if _is_wide_image(space, obs) else obs.dtype)


def _is_wide_image(space: spaces.AnySpace, obs: PyTree) -> bool:
    """Tell whether integers are wider than their space's uint8: the network would not scale them."""
    is_bytes = isinstance(space, spaces.Box) and np.dtype(space.dtype) == np.uint8
    return is_bytes and jnp.issubdtype(obs.dtype, jnp.integer) and obs.dtype != jnp.uint8


def _in_32_bits(tree: PyTree) -> PyTree:
    """Narrow the arrays of 64 bits in parameters or an action, which x64 makes of Python's numbers."""

    def narrowed(x: Any) -> Any:
        dtype = getattr(x, "dtype", None)
        if dtype in (jnp.float64, jnp.int64, jnp.uint64):
            return jnp.asarray(x).astype(dtype.name.replace("64", "32"))
        return x

    return jax.tree.map(narrowed, tree)


def _name_of(env: Any) -> str:
    name = getattr(env, "name", None)
    return name if isinstance(name, str) else type(env).__name__


def _same(found: spaces.AnySpace, space: Any) -> bool:
    """Tell whether ``standard`` has found nothing to change."""
    if isinstance(found, spaces.Dict) and isinstance(space, spaces.Dict):
        return all(_same(part, space.spaces[name]) for name, part in found.spaces.items())
    if isinstance(found, spaces.Tuple) and isinstance(space, spaces.Tuple):
        return all(_same(part, own) for part, own in zip(found.spaces, space.spaces, strict=True))
    return found is space


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_real(value: Any) -> bool:
    return any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))


def _squeezed(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n != 1]


def _describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if _is_array(value) else _shortened(value)


def _shortened(value: Any, width: int = 120) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= width else f"{text[:width]}..."


def _count(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, (tuple, list)) else f"a {type(value).__name__}"


def _first_line(error: Exception, *, named: bool = True) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if named else line
