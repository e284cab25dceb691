"""The contract that every learning algorithm keeps, and the registry of their names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
import optax

from s5_adapters.core.memories.defaults import complete_as_formerly
from s5_adapters.core.memories.memory import memory_class
from s5_adapters.core.network.parts import part_of
from s5_adapters.core.registry import Registry
from s5_adapters.purejax.algorithms.gradients import clip_by_global_norm, global_norm
from s5_adapters.purejax.algorithms.metrics import FAULT_METRICS, Metrics, find_fault, name_quantity
from s5_adapters.purejax.config import TrainConfig
from s5_adapters.purejax.problem import Problem, Pytree
from s5_adapters.purejax.rollout import Carry, init_carry

RMSPROP_DECAY = 0.99
"""Of RMSProp's mean of squares, as in Mnih et al. (arXiv 1602.01783)."""


class TrainState(NamedTuple):
    """The whole state of a run at one moment: a checkpoint holds this and nothing else."""

    params: Pytree
    opt_state: Pytree
    """The optimiser's state; an algorithm that keeps more between updates keeps it here too."""
    carry: Carry
    key: jax.Array
    """Typed PRNG key that all later randomness comes from."""
    update: jax.Array
    """int32: updates done."""
    learning_rate: jax.Array
    """float32: the learning rate before annealing."""


@dataclass(frozen=True)
class Algorithm(TrainConfig, ABC):
    """A learning algorithm with its hyperparameters: a configuration that knows its first state and update.

    A subclass is a frozen dataclass, registered with ``register_algorithm``. Its fields are the
    hyperparameters, of the kinds in ``fields``; it supplies ``METRICS`` and ``update``, and may replace
    ``init_state``. Instances are static: whatever the methods do with a ``TrainState`` is traced.
    """

    name: ClassVar[str]
    """The name in the registry."""
    METRICS: ClassVar[Mapping[str, str]]
    """The numbers that ``update`` returns, float32 scalars, and what they are."""
    LOSSES: ClassVar[tuple[str, ...]] = ("policy_loss", "value_loss", "entropy")
    """What a gradient step gives that must be finite, in the order in which one makes the next go wrong."""
    FORMERLY: ClassVar[Mapping[str, Any]] = {}
    """What a run's file that leaves these fields out was trained with, where a default has changed since."""
    SPLITS: ClassVar[bool] = False
    """Whether ``update`` may run on one of several devices, with its share of the environments: whatever it
    takes a mean of over environments, gradients above all, it then takes over ``problem.split`` too."""

    def told(self) -> dict[str, Any]:
        """Return the fields that a record has to tell, for ``from_record`` to make the same of it.

        The same whatever fields and defaults come later, if ``FORMERLY`` is kept: what a sweep knows its
        cells by.
        """
        silent = self.from_dict(self.FORMERLY).to_dict()
        known = self.completed().to_dict()
        return {name: value for name, value in known.items() if value != silent[name]}

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        """Make one of what a run or a sweep recorded: what is left out means what it meant to that version.

        Raises:
            ValueError: as ``from_dict``, or arguments that the memory refuses.
        """
        config = cls.from_dict({**cls.FORMERLY, **values})
        return replace(config, memory_config=complete_as_formerly(config.memory, config.memory_config))

    def init_state(self, problem: Problem, key: jax.Array, learning_rate: jax.Array) -> TrainState:
        """Return the state before the first update."""
        net_key, env_key, key = jax.random.split(key, 3)
        params = problem.net.init(net_key)
        return TrainState(
            params=params,
            opt_state=self.make_optimizer().init(params),
            carry=init_carry(problem, self, env_key),
            key=key,
            update=jnp.int32(0),
            learning_rate=learning_rate,
        )

    @abstractmethod
    def update(self, problem: Problem, state: TrainState) -> tuple[TrainState, Metrics]:
        """Collect one rollout and learn from it; ``finish`` makes the result."""

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one update."""
        return 1

    @property
    def parts_of_rollout(self) -> int:
        """Into how many equal parts the environments of a rollout are cut to learn from."""
        return 1

    def check_devices(self, devices: int) -> None:
        """See whether a run can be split over so many devices.

        Raises:
            ValueError: one line, where the algorithm was not written for it, or there are no equal shares.
        """
        if devices == 1:
            return
        if not self.SPLITS:
            raise ValueError(
                f"devices: got {devices}, expected 1 with algorithm {self.name!r}, which does not say "
                "that it can be split (SPLITS, docs/add-an-algorithm.md)"
            )
        parts = self.parts_of_rollout
        if self.num_envs % (devices * parts):
            fitting = [n for n in range(1, self.num_envs + 1) if self.num_envs % (n * parts) == 0]
            cut = f" and num_minibatches={parts}" if parts > 1 else ""
            raise ValueError(
                f"devices: num_envs={self.num_envs} does not divide by devices={devices}{cut}: every device "
                f"keeps and shuffles environments of its own; expected a multiple of {devices * parts}, or "
                f"devices one of {', '.join(map(str, fitting))}"
            )

    def name_gradient_step(self, step: int) -> str:
        """Say which gradient step of an update it was, as the end of a sentence; nothing if there is one."""
        return ""

    def make_optimizer(self) -> optax.GradientTransformation:
        """Return gradient clipping and the optimiser's direction; ``descend`` applies the step size."""
        clip = optax.identity() if self.max_grad_norm is None else clip_by_global_norm(self.max_grad_norm)
        if self.optimizer == "rmsprop":
            rms = optax.scale_by_rms(decay=RMSPROP_DECAY, eps=self.adam_eps, eps_in_sqrt=False)
            return optax.chain(clip, rms)
        return optax.chain(clip, optax.scale_by_adam(eps=self.adam_eps))

    def annealed(self, state: TrainState) -> jax.Array:
        """Return the learning rate of the update that begins at ``state``, float32."""
        if not self.anneal_learning_rate:
            return state.learning_rate
        return state.learning_rate * (1 - state.update / self.num_updates)

    def descend(
        self, params: Pytree, opt_state: Pytree, grads: Pytree, learning_rate: jax.Array
    ) -> tuple[Pytree, Pytree]:
        """Take one gradient step; the learning rate may be traced."""
        before = params, opt_state
        if self.freeze:  # before the optimiser: what is frozen has no part in the norm that is clipped
            grads = jax.tree_util.tree_map_with_path(self._thawed, grads)
        directions, opt_state = self.make_optimizer().update(grads, opt_state, params)
        if self.dynamics_lr_scale != 1:
            directions = self._scale_dynamics(directions)
        if self.lr_scales:
            directions = jax.tree_util.tree_map_with_path(self._scale_part, directions)
        params = jax.tree.map(lambda param, direction: param - learning_rate * direction, params, directions)
        if self.on_nonfinite == "stop":
            return params, opt_state
        is_taken = jnp.isfinite(global_norm(grads))
        taken: tuple[Pytree, Pytree] = jax.tree.map(partial(jnp.where, is_taken), (params, opt_state), before)
        return taken

    def _thawed(self, path: tuple[Any, ...], gradient: jax.Array) -> jax.Array:
        return jnp.zeros_like(gradient) if _part(path) in self.freeze else gradient

    def _scale_part(self, path: tuple[Any, ...], direction: jax.Array) -> jax.Array:
        return self.lr_scales.get(_part(path), 1.0) * direction

    def _scale_dynamics(self, directions: Pytree) -> Pytree:
        scale, names = self.dynamics_lr_scale, memory_class(self.memory).dynamics

        def scaled(path: tuple[Any, ...], direction: jax.Array) -> jax.Array:
            *parts, name = (entry.key for entry in path)
            is_memory = parts[-1] in ("memory", "critic_memory")
            return scale * direction if is_memory and name in names else direction

        return jax.tree_util.tree_map_with_path(scaled, directions)

    def finish(
        self,
        state: TrainState,
        learning_rate: jax.Array,
        rollout_metrics: Metrics,
        step_metrics: Metrics,
        computed: jax.Array | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Count the update, and give its metrics with the first number that is not finite.

        Args:
            state: with the new parameters, optimiser state, carry and key, and the old ``update``.
            learning_rate: of this update.
            rollout_metrics: scalars, see ``metrics.rollout_metrics``.
            step_metrics: ``LOSSES``, ``grad_norm`` and whatever else each gradient step gives, by name:
                ``(gradient_steps,)``, or scalars of a single step. Their means are reported.
            computed: bool likewise: the gradient steps that were, and that means are taken over; None: all.
        """
        step_metrics = jax.tree.map(jnp.atleast_1d, step_metrics)
        counted = jnp.ones_like(step_metrics["grad_norm"], bool) if computed is None else computed
        metrics: Metrics = {name: jnp.int32(-1) for name in FAULT_METRICS} | {"skipped": jnp.int32(0)}
        metrics |= rollout_metrics | {"gradient_steps": counted.sum()}
        if self.on_nonfinite == "skip":
            is_taken = jnp.isfinite(step_metrics["grad_norm"])
            metrics["skipped"] = (counted & ~is_taken).sum()
            counted &= is_taken
        step_metrics = jax.tree.map(lambda x: jnp.where(counted, x, 0), step_metrics)
        metrics |= jax.tree.map(lambda x: x.sum() / counted.sum(), step_metrics)
        metrics |= {"param_norm": global_norm(state.params), "learning_rate": learning_rate}
        watched = metrics | {"statistics": _size_of((state.carry.obs_stats, state.carry.reward_stats))}
        metrics["fault"] = find_fault(watched, step_metrics, self.LOSSES)
        state = state._replace(update=state.update + 1)
        return state, {name: jnp.asarray(metrics[name], jnp.float32) for name in self.METRICS}

    def name_fault(self, fault: int) -> str:
        """Say in words which number the metric ``fault`` of an update means."""
        quantity, step = name_quantity(int(fault), self.LOSSES, self.gradient_steps)
        return quantity if step is None else quantity + self.name_gradient_step(step)


def _part(path: tuple[Any, ...]) -> str:
    return part_of(jax.tree_util.keystr(path, simple=True, separator="/"))


def _size_of(statistics: Pytree) -> jax.Array:
    """Return the largest absolute value of running statistics, which is finite where they all are."""
    return jnp.stack([jnp.float32(0), *(jnp.abs(leaf).max() for leaf in jax.tree.leaves(statistics))]).max()


A = TypeVar("A", bound=type[Algorithm])
_REGISTRY: Final[Registry[Algorithm]] = Registry(
    "algorithm",
    {"ppo": "s5_adapters.purejax.algorithms.ppo", "a2c": "s5_adapters.purejax.algorithms.a2c"},
    hint=" (one from elsewhere has to be imported first: --import MODULE)",
)
DEFAULT: Final = "ppo"
"""The algorithm where none is named, as in a ``config.json`` from before there were others."""


def register_algorithm(name: str) -> Callable[[A], A]:
    """Return a class decorator that makes an ``Algorithm`` known under ``name``.

    Raises:
        ValueError: the name is taken by another class.
    """
    return _REGISTRY.register(name)


def algorithm_names() -> tuple[str, ...]:
    """Return the names that ``algorithm_class`` knows, sorted."""
    return _REGISTRY.names()


def algorithm_class(name: str) -> type[Algorithm]:
    """Return the class registered under ``name``.

    Raises:
        ValueError: no algorithm has that name; the message lists the nearest ones.
    """
    return _REGISTRY.find(name)
