"""Environment ids and ``make``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from s5_envs import popgym, spaces
from s5_envs.adapt import adapt, narrow
from s5_envs.extras import adapter_of
from s5_envs.in_context.meta_cartpole import meta_cartpole
from s5_envs.in_context.meta_control import meta_control
from s5_envs.in_context.meta_dmc import meta_dmc
from s5_envs.interface import AnyEnvironment, PyTree
from s5_envs.masks import ActionMask
from s5_envs.memory_chain import MemoryChain
from s5_envs.wrappers import FlattenAction, PreviousAction

_registry: dict[str, Callable[..., AnyEnvironment]] = {}


def register(env_id: str, factory: Callable[..., AnyEnvironment], **config: Any) -> None:
    """Add an environment: ``make(env_id, **kwargs)`` calls ``factory(**config | kwargs)``.

    Raises:
        ValueError: where the id is taken.
    """
    if env_id in _registry:
        raise ValueError(f"register: {env_id!r} is already registered")
    _registry[env_id] = partial(factory, **config)


def registered_ids() -> tuple[str, ...]:
    """Return this package's ids, in the order of their registration."""
    return tuple(_registry)


def popgym_ids() -> tuple[str, ...]:
    """Return the 48 ids of POPGym, sorted by family and then by difficulty."""
    return tuple(
        env_id
        for env_id, factory in _registry.items()
        if isinstance(factory, partial) and getattr(popgym, factory.func.__name__, None) is factory.func
    )


def gymnax_ids() -> tuple[str, ...]:
    """Return the ids that only gymnax has; ``make`` takes them too."""
    from gymnax.registration import registered_envs

    return tuple(env_id for env_id in registered_envs if env_id not in _registry)


def make(
    env_id: str,
    *,
    previous_action: bool | None = None,
    flatten_action: bool = False,
    action_mask: bool = False,
    **kwargs: Any,
) -> tuple[AnyEnvironment, PyTree]:
    """Build an environment: ``env, params``.

    Families that cannot be played well without seeing one's own previous action (``obs_requires_prev_action``
    in the reference: Battleship, Concentration, LabyrinthEscape, LabyrinthExplore, MineSweeper,
    MultiarmedBandit) come wrapped in ``PreviousAction``, which appends that action and a first-step flag.
    All others come as they are.

    Args:
        env_id: one of ``registered_ids()``, any gymnax id, ``xminigrid/ID`` of XLand-MiniGrid (extra
            ``xland``), or ``playground/TASK`` of Playground's DeepMind Control tasks (extra ``control``).
        previous_action: wrap in ``PreviousAction``; None leaves it to the family, False never does.
        flatten_action: make one discrete action of a multi-discrete one (the previous action is still
            encoded by its components, as in POPGym).
        action_mask: observe a Dict with the mask of the actions that the rules leave (``ActionMask``), of
            Battleship, Concentration and MineSweeper; implies ``flatten_action`` where there is something to
            flatten.
        **kwargs: the difficulty, in place of the id's own (``make("RepeatPreviousEasy", k=8)``); for a gymnax
            id its constructor's arguments or fields of its parameters.

    Raises:
        ValueError: for an unknown id or argument, with the nearest names, an extra that is not installed,
            and an environment that does not do what its interface says; one line that names it (see
            ``s5_envs.adapt``).
    """
    adapter = adapter_of(env_id)
    if env_id in _registry:
        env, params = _make_registered(env_id, kwargs)
    elif adapter is not None:
        module, name = adapter
        env, params = module.make(name, **kwargs)
    elif env_id in gymnax_ids():
        with narrow():
            env, params = _make_gymnax(env_id, kwargs)
    else:
        raise ValueError(f"unknown environment {env_id!r}; {_nearest(env_id)}")
    env = adapt(env, params, name=env_id)
    if previous_action or (previous_action is None and getattr(env, "obs_requires_prev_action", False)):
        env = PreviousAction(env)
    if flatten_action or (action_mask and isinstance(env.action_space(params), spaces.MultiDiscrete)):
        env = FlattenAction(env)
    return (ActionMask(env) if action_mask else env), params


def arguments(env_id: str) -> tuple[str, ...] | None:
    """Return the arguments that a registered id takes; None where it takes any, or nobody can tell."""
    factory = _registry.get(env_id)
    target = factory.func if isinstance(factory, partial) else factory
    if is_dataclass(target):
        return tuple(field.name for field in fields(target))
    if not inspect.isfunction(target):
        return None
    parameters = inspect.signature(target).parameters.values()
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else tuple(p.name for p in parameters)


def _nearest(env_id: str) -> str:
    lowered = {known.lower(): known for known in (*registered_ids(), *gymnax_ids())}
    close = difflib.get_close_matches(str(env_id).lower(), lowered, n=3, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(lowered[name] for name in close) + "?"
    return "s5_envs.registered_ids() lists all"


def _check_arguments(env_id: str, given: dict[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{env_id} has no argument {name!r}; it takes: {takes}")


def _make_registered(env_id: str, kwargs: dict[str, Any]) -> tuple[AnyEnvironment, PyTree]:
    known = arguments(env_id)
    if known is not None:
        _check_arguments(env_id, kwargs, set(known))
    env = _registry[env_id](**kwargs)
    return env, env.default_params


def _make_gymnax(env_id: str, kwargs: dict[str, Any]) -> tuple[AnyEnvironment, PyTree]:
    import gymnax
    from gymnax.registration import _registry as factories

    arguments = {
        name
        for name, p in inspect.signature(factories[env_id]).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    env, params = gymnax.make(env_id, **{k: v for k, v in kwargs.items() if k in arguments})
    settings = {k: v for k, v in kwargs.items() if k not in arguments}
    known = {f.name for f in fields(params)}
    _check_arguments(env_id, settings, known | arguments)
    return env, params.replace(**settings)


register("AutoencodeEasy", popgym.Autoencode, num_decks=1)
register("AutoencodeMedium", popgym.Autoencode, num_decks=2)
register("AutoencodeHard", popgym.Autoencode, num_decks=3)
register("BattleshipEasy", popgym.Battleship, board_size=8)
register("BattleshipMedium", popgym.Battleship, board_size=10)
register("BattleshipHard", popgym.Battleship, board_size=12)
register("ConcentrationEasy", popgym.Concentration, num_decks=1, deck_type="colors")
register("ConcentrationMedium", popgym.Concentration, num_decks=2, deck_type="colors")
register("ConcentrationHard", popgym.Concentration, num_decks=1, deck_type="ranks")
register("CountRecallEasy", popgym.CountRecall, num_decks=1, deck_type="colors")
register("CountRecallMedium", popgym.CountRecall, num_decks=2, deck_type="suits")
register("CountRecallHard", popgym.CountRecall, num_decks=4, deck_type="ranks")
register("HigherLowerEasy", popgym.HigherLower, num_decks=1)
register("HigherLowerMedium", popgym.HigherLower, num_decks=2)
register("HigherLowerHard", popgym.HigherLower, num_decks=3)
register("LabyrinthEscapeEasy", popgym.LabyrinthEscape, size=10)
register("LabyrinthEscapeMedium", popgym.LabyrinthEscape, size=14)
register("LabyrinthEscapeHard", popgym.LabyrinthEscape, size=18)
register("LabyrinthExploreEasy", popgym.LabyrinthExplore, size=10)
register("LabyrinthExploreMedium", popgym.LabyrinthExplore, size=14)
register("LabyrinthExploreHard", popgym.LabyrinthExplore, size=18)
register("MineSweeperEasy", popgym.MineSweeper, dims=(4, 4), num_mines=2)
register("MineSweeperMedium", popgym.MineSweeper, dims=(6, 6), num_mines=6)
register("MineSweeperHard", popgym.MineSweeper, dims=(8, 8), num_mines=10)
register("MultiarmedBanditEasy", popgym.MultiarmedBandit, num_bandits=10, max_episode_length=200)
register("MultiarmedBanditMedium", popgym.MultiarmedBandit, num_bandits=20, max_episode_length=400)
register("MultiarmedBanditHard", popgym.MultiarmedBandit, num_bandits=30, max_episode_length=600)
register("NoisyPositionOnlyCartPoleEasy", popgym.NoisyPositionOnlyCartPole, noise_sigma=0.1)
register("NoisyPositionOnlyCartPoleMedium", popgym.NoisyPositionOnlyCartPole, noise_sigma=0.2)
register("NoisyPositionOnlyCartPoleHard", popgym.NoisyPositionOnlyCartPole, noise_sigma=0.3)
register("NoisyPositionOnlyPendulumEasy", popgym.NoisyPositionOnlyPendulum, noise_sigma=0.1)
register("NoisyPositionOnlyPendulumMedium", popgym.NoisyPositionOnlyPendulum, noise_sigma=0.2)
register("NoisyPositionOnlyPendulumHard", popgym.NoisyPositionOnlyPendulum, noise_sigma=0.3)
register("PositionOnlyCartPoleEasy", popgym.PositionOnlyCartPole, max_episode_length=200)
register("PositionOnlyCartPoleMedium", popgym.PositionOnlyCartPole, max_episode_length=400)
register("PositionOnlyCartPoleHard", popgym.PositionOnlyCartPole, max_episode_length=600)
register("PositionOnlyPendulumEasy", popgym.PositionOnlyPendulum, max_episode_length=200)
register("PositionOnlyPendulumMedium", popgym.PositionOnlyPendulum, max_episode_length=150)
register("PositionOnlyPendulumHard", popgym.PositionOnlyPendulum, max_episode_length=100)
register("RepeatFirstEasy", popgym.RepeatFirst, num_decks=1)
register("RepeatFirstMedium", popgym.RepeatFirst, num_decks=8)
register("RepeatFirstHard", popgym.RepeatFirst, num_decks=16)
register("RepeatPreviousEasy", popgym.RepeatPrevious, num_decks=1, k=4)
register("RepeatPreviousMedium", popgym.RepeatPrevious, num_decks=2, k=32)
register("RepeatPreviousHard", popgym.RepeatPrevious, num_decks=3, k=64)
register("VelocityOnlyCartPoleEasy", popgym.VelocityOnlyCartPole, max_episode_length=200)
register("VelocityOnlyCartPoleMedium", popgym.VelocityOnlyCartPole, max_episode_length=400)
register("VelocityOnlyCartPoleHard", popgym.VelocityOnlyCartPole, max_episode_length=600)
register("MemoryChain-bsuite", MemoryChain)
register("MetaCartPole-v0", meta_cartpole)
register("MetaControl-v0", meta_control)
register("MetaDMC-v0", meta_dmc)
