"""gymnax 1.x's interface as types: what wrappers, adapters and trainers ask of an environment.

Observations, states and parameters are pytrees whose structure only the environment knows; whoever holds it
hands them back as they came. Environments of this package say more, see ``s5_envs.base.Environment``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import jax
from gymnax.environments.spaces import Space

PyTree: TypeAlias = Any  # arrays in any structure
Info: TypeAlias = dict[str, PyTree]
Step: TypeAlias = tuple[PyTree, PyTree, jax.Array, jax.Array, jax.Array, Info]
"""``obs, state, reward, terminated, truncated, info``."""


class AnyEnvironment(Protocol):
    """An environment from anywhere, wrapped or not, that does what gymnax 1.x's interface says."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def default_params(self) -> PyTree:
        """The parameters it has unless told otherwise."""

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or of an action's components."""

    def action_space(self, params: PyTree, /) -> Space:
        """Return the space of actions."""

    def observation_space(self, params: PyTree, /) -> Space:
        """Return the space of observations."""

    def reset(self, key: jax.Array, params: PyTree = None, /) -> tuple[PyTree, PyTree]:
        """Begin an episode: ``obs, state``."""

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None, /) -> Step:
        """Take one step, with automatic reset."""


_Method = TypeVar("_Method", bound=Callable[..., Any])


def jitted(method: _Method) -> _Method:
    """Compile a method of a hashable object, which becomes part of what compilations are known by."""
    compiled: Any = partial(jax.jit, static_argnames=("self",))(method)
    return cast(_Method, compiled)  # it is called as the method is; JAX types it as taking anything
