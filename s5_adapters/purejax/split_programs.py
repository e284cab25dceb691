"""The compiled programs of a run whose environments are split over devices: one program, on all of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from s5_adapters.core.xla.shared import Shared
from s5_adapters.purejax.algorithms.algorithm import Algorithm, TrainState
from s5_adapters.purejax.algorithms.metrics import Metrics
from s5_adapters.purejax.problem import Problem, Pytree, build_problem
from s5_adapters.purejax.processes import are_several
from s5_adapters.purejax.rollout import Carry
from s5_adapters.purejax.split import AXIS, WHOLE, Split
from s5_adapters.purejax.training import Programs, run_updates
from s5_adapters.purejax.words import from_words, to_words

_EVERYWHERE: Any = P()
_SPLIT: Any = P(AXIS)
_CARRY = Carry(
    env_state=_SPLIT,
    obs=_SPLIT,
    episode_starts=_SPLIT,
    memory_state=_SPLIT,
    episode_return=_SPLIT,
    episode_length=_SPLIT,
    obs_stats=_EVERYWHERE,
    reward_stats=_EVERYWHERE,
    discounted_return=_SPLIT,
)
_STATE = TrainState(
    params=_EVERYWHERE,
    opt_state=_EVERYWHERE,
    carry=_CARRY,
    key=_EVERYWHERE,
    update=_EVERYWHERE,
    learning_rate=_EVERYWHERE,
)
"""Where the parts of a state lie: those of environments are split along their first axis."""


class SplitPrograms(Shared):
    """What ``Programs`` is, for a run on several devices.

    The whole loop runs inside ``jax.shard_map``, each device on its own environments, so no compiler decides
    what crosses between devices: it is what ``Split`` says.

    Args:
        config: what to train.
        split: over how many devices.

    Attributes:
        problem: the environment and the network, whole.
        mesh: the devices, the first of all that there are.
        init_state: ``(key, learning_rate) -> TrainState``.
        run_chunk: ``(state, num_updates, buffer_size=...)``, as that of ``Programs``.

    Raises:
        ValueError: one line, where there are fewer devices, no equal shares, or an environment whose state
            cannot be told apart by environments.
    """

    def __init__(self, config: Algorithm, split: Split):
        super().__init__(config, split)
        self.mesh = Mesh(np.array(devices_for(split.devices)), (AXIS,))
        config.check_devices(split.devices)
        self.problem: Problem = build_problem(config)
        share = self.problem.over(split)
        self._check_states(config)

        def init_state(key: jax.Array, learning_rate: jax.Array) -> TrainState:
            return config.init_state(share, key, learning_rate)

        def run_chunk(
            state: TrainState, num_updates: jax.Array, *, buffer_size: int
        ) -> tuple[TrainState, Metrics]:
            def run(state: TrainState, num_updates: jax.Array) -> tuple[TrainState, Metrics]:
                return run_updates(share, config, state, num_updates, buffer_size)

            result: tuple[TrainState, Metrics] = self._on_all(run, (_STATE, P()), (_STATE, P()))(
                state, num_updates
            )
            return result

        self._gather: Any = None
        self.init_state: Any = jax.jit(self._on_all(init_state, (P(), P()), _STATE))
        self.run_chunk: Any = jax.jit(run_chunk, static_argnames="buffer_size", donate_argnames="state")

    def place(self, state: TrainState) -> TrainState:
        """Put a state, wherever its arrays are, onto the devices, split."""
        parts = jax.tree.broadcast(_STATE, state, is_leaf=_is_spec)
        placed: TrainState = jax.tree.map(self._place, parts, state, is_leaf=_is_spec)
        return placed

    def whole(self, state: TrainState) -> TrainState:
        """Return the whole state on one device of each process, all of which take part."""
        if not are_several():
            return state  # the host reads it as it lies
        everywhere = self._sharding(_EVERYWHERE)
        if self._gather is None:
            self._gather = jax.jit(lambda state: state, out_shardings=everywhere)
        gathered: TrainState = on_one_device(self._gather(state))
        return gathered

    def _place(self, part: P, leaf: Any) -> Any:
        sharding = self._sharding(part)
        if not are_several():
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        words = np.asarray(to_words(leaf))
        return from_words(
            leaf, jax.make_array_from_callback(words.shape, sharding, lambda index: words[index])
        )

    def _sharding(self, part: P) -> NamedSharding:
        return NamedSharding(self.mesh, part)

    def _on_all(self, run: Any, takes: Any, gives: Any) -> Any:
        # What is equal everywhere is so by construction, and what crosses is written out: nothing to infer.
        return jax.shard_map(run, mesh=self.mesh, in_specs=takes, out_specs=gives, check_vma=False)

    def _check_states(self, config: Algorithm) -> None:
        state = jax.eval_shape(lambda: self.problem.reset(jax.random.key(0), config.num_envs)[1])
        if any(leaf.ndim == 0 for leaf in jax.tree.leaves(state)):
            raise ValueError(
                f"devices: the states of {config.env_id} in a batch have a part that no environment owns, "
                "so expected devices=1"
            )


def programs_on(config: Algorithm, split: Split) -> Programs | SplitPrograms:
    """Return the compiled programs of a run on the devices of a split.

    Raises:
        ValueError: one line, as ``SplitPrograms``.
    """
    return Programs.of(config) if split == WHOLE else SplitPrograms.of(config, split)


def devices_for(count: int) -> list[Any]:
    """Return the first ``count`` devices.

    Raises:
        ValueError: one line, where there are fewer.
    """
    there = jax.devices()
    if count > len(there):
        raise ValueError(
            f"devices: got {count}, expected at most the {len(there)} there are ({there[0].platform})"
        )
    if count < len(there) and are_several():
        raise ValueError(f"devices: got {count}, expected the {len(there)} of all processes")
    return there[:count]


def refuse_other_split(config: Algorithm) -> None:
    """See whether a run may resume on another number of devices than it was begun on.

    Raises:
        ValueError: one line, where the environment lays a batch out itself (``step_batch``): which states
            belong to which observations is then only known on as many devices.
    """
    if hasattr(build_problem(config).env, "step_batch"):
        raise ValueError(
            f"devices: {config.env_id} divides every device's environments between its families, so expected "
            "as many devices as the run was begun on"
        )


def on_one_device(tree: Pytree) -> Pytree:
    """Return arrays that are equal everywhere as this process's first device has them."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def _is_spec(part: object) -> bool:
    return isinstance(part, P)
