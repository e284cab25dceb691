"""What this repository uses of gymnax 1.0, which ships no types; for type checkers only."""

from typing import Any

from gymnax.environments.environment import Environment

def make(env_id: str, **env_kwargs: Any) -> tuple[Environment[Any, Any], Any]: ...
