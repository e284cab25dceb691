from collections.abc import Callable
from typing import Any

from gymnax.environments.environment import Environment

registered_envs: list[str]
_registry: dict[str, Callable[..., Environment[Any, Any]]]
