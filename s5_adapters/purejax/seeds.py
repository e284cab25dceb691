"""Several seeds of one configuration as one program, shared out over devices, each with its own folder."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from s5_adapters.core import checks
from s5_adapters.core.xla.shared import Shared
from s5_adapters.purejax.algorithms.algorithm import Algorithm, TrainState
from s5_adapters.purejax.algorithms.metrics import Metrics
from s5_adapters.purejax.checkpoint import Checkpoints, CheckpointWriteError, restore_newest_whole
from s5_adapters.purejax.claim import FolderTakenError, claim_existing, claim_new
from s5_adapters.purejax.faults import RunFolderError, is_gone, rescue, told
from s5_adapters.purejax.logging import RunLog, fault_in
from s5_adapters.purejax.problem import build_problem
from s5_adapters.purejax.progress import Reporter, Silent
from s5_adapters.purejax.run_folder import RunConfig, RunOptions
from s5_adapters.purejax.split_programs import devices_for
from s5_adapters.purejax.trainer import HostMetrics, NonFiniteError, Trainer, fetch
from s5_adapters.purejax.training import run_updates
from s5_adapters.purejax.words import from_words, to_words

_AXIS = "seeds"


class SeedPrograms(Shared):
    """The compiled programs of several seeds; a device with one of them runs its update without batching it.

    Args:
        config: what to train.
        devices: how many devices share the seeds, equally.
        seeds: how many seeds.

    Attributes:
        init_state: ``(keys, learning_rate) -> TrainState``, its leaves leading with ``seeds``.
        run_chunk: ``(state, num_updates, buffer_size=...)``, likewise with metrics ``(seeds, buffer_size)``.
    """

    def __init__(self, config: Algorithm, devices: int, seeds: int):
        super().__init__(config, devices, seeds)
        problem = build_problem(config)
        mesh = Mesh(np.array(devices_for(devices)), (_AXIS,))
        self._sharding = NamedSharding(mesh, P(_AXIS))
        every = _one_by_one if seeds == devices else jax.vmap

        def init_state(keys: jax.Array, learning_rate: jax.Array) -> TrainState:
            def init(keys: jax.Array, learning_rate: jax.Array) -> TrainState:
                states: TrainState = every(lambda key: config.init_state(problem, key, learning_rate))(keys)
                return states

            states: TrainState = _on_all(mesh, init)(keys, learning_rate)
            return states

        def run_chunk(
            state: TrainState, num_updates: jax.Array, *, buffer_size: int
        ) -> tuple[TrainState, Metrics]:
            def run(state: TrainState, num_updates: jax.Array) -> tuple[TrainState, Metrics]:
                update = every(lambda state: run_updates(problem, config, state, num_updates, buffer_size))
                result: tuple[TrainState, Metrics] = update(state)
                return result

            result: tuple[TrainState, Metrics] = _on_all(mesh, run)(state, num_updates)
            return result

        self.init_state: Any = jax.jit(init_state)
        self.run_chunk: Any = jax.jit(run_chunk, static_argnames="buffer_size", donate_argnames="state")

    def place(self, states: Sequence[TrainState]) -> TrainState:
        """Return one state that holds those of all seeds, each on its device."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        placed: TrainState = jax.device_put(stacked, self._sharding)
        return placed


class SeedsTrainer(Trainer):
    """A ``Trainer`` of several seeds at once, each with the folder of a run of its own.

    Each seed is the run that a ``Trainer`` of it does, to rounding. A seed whose numbers are not finite ends
    there, and the others go on, with ``goes_on`` too: its log says so. Each folder is any run's: it can be
    resumed, evaluated, exported by itself.

    Args:
        config: what to train.
        run_dirs: the folder of each seed, in order from ``seed``: unused, or with ``goes_on`` begun already.
        seed: the first seed.
        options: how the runs are watched and kept.
        reporter: shows progress, the mean over seeds.
        devices: how many devices share the seeds.
        goes_on: continue the runs where all that have not ended early have a checkpoint of the same update.

    Attributes:
        members: a trainer of each seed, which does not run by itself.
        failures: a line for each seed that ended early.

    Raises:
        ValueError: as ``Trainer``, and where the devices do not divide the seeds, or for ``options.wandb``.
    """

    def __init__(
        self,
        config: Algorithm,
        run_dirs: Sequence[Path],
        *,
        seed: int = 0,
        options: RunOptions | None = None,
        reporter: Reporter | None = None,
        devices: int = 1,
        goes_on: bool = False,
    ):
        count = len(run_dirs)
        if count % checks.integer("devices", devices):
            fitting = ", ".join(str(n) for n in range(1, devices) if count % n == 0)
            raise ValueError(f"seeds: got {count} on devices={devices}, expected devices one of {fitting}")
        run_config = RunConfig(config.completed(), seed, None, options or RunOptions(), 1)
        if run_config.options.wandb:
            raise ValueError(
                "wandb: got True with several seeds, expected False: one process logs one run there"
            )
        self._prepare(run_config, None, reporter)
        self._split_over(1)
        self.members = [
            _member(run_config, seed + i, run_dir, self._reporter) for i, run_dir in enumerate(run_dirs)
        ]
        self.failures: list[str] = []
        self._alive = list(range(count))
        self._seed_programs = SeedPrograms.of(self.config, devices, count)
        self._logs: dict[int, RunLog] = {}
        is_new: list[bool] = []
        try:
            for member in self.members:
                is_new.append(_claim(member, goes_on))
            self._begin()
            self._compile()
        except BaseException:
            for member, begins in zip(self.members, is_new, strict=False):
                assert member._claim is not None
                member._claim.abandon() if begins else member._claim.release()
            raise
        self.run_dir = run_dirs[0].parent

    def save(self) -> Path:
        """Write a checkpoint of every seed that is going on and return the folder of the first's."""
        for i, state in self._going_on():
            self.members[i].state = state
            self.members[i].save()
        return _checkpoints(self.members[self._alive[0]]).path(self.update)

    def _going_on(self) -> Iterator[tuple[int, TrainState]]:
        """Give the places of the seeds whose numbers are finite, with their states on the host."""
        states = jax.tree.map(lambda leaf: np.asarray(to_words(leaf)), self.state)
        for i in self._alive:
            own = jax.tree.map(lambda leaf, i=i: leaf[i], states)
            yield i, jax.tree.map(from_words, self._like, own)

    def _end(self, i: int, fault: str) -> None:
        """Leave a seed out from now on."""
        self._alive.remove(i)
        self.failures.append(f"seed {self.members[i].run_config.seed}: {fault}")
        self._warn(self.failures[-1])

    @property
    def how_to_go_on(self) -> str:
        """What goes on with the runs."""
        return "the same command with --resume auto"

    def _begin(self) -> None:
        """Take all seeds' states at the last update of which all have a checkpoint, or the first ones.

        Seeds that ended early are left out. Their place in the program is another's, so that it stays the one
        that there was, and the others' bits those that they would have had.

        Raises:
            ValueError: one line, where the seeds are too far apart to have stopped together, no checkpoints
                are whole, or all seeds have ended early.
        """
        self._like = jax.eval_shape(self._init, self._key)
        for i, member in enumerate(self.members):
            fault = fault_in(_folder(member))
            if fault is not None:
                self._end(i, fault)
        if not self._alive:
            raise ValueError(
                f"seeds: all have ended early, expected one that has not ({self.failures[-1]}); go on "
                "with each by itself (--resume)"
            )
        alive = [self.members[i] for i in self._alive]
        kept = [set(_checkpoints(member).updates()) for member in alive]
        common = max(set.intersection(*kept), default=0)
        furthest = max(kept, key=lambda updates: max(updates, default=0))
        if max(furthest, default=0) > common + self._checkpoint_every:
            ahead = alive[kept.index(furthest)]
            raise ValueError(
                f"seeds: {ahead.run_dir} is at update {max(furthest)}, and update {common} is the last of "
                "which all seeds have a checkpoint: go on with each by itself (--resume)"
            )
        if not common:
            keys = jnp.stack([member._key for member in self.members])
            self.state = self._seed_programs.init_state(keys, jnp.float32(self.config.learning_rate))
            return
        states, damaged = restore_newest_whole(list(map(_checkpoints, alive)), self._like)
        for line in damaged:
            self._warn(line)
        for member, state in zip(alive, states, strict=True):
            member._go_on(state)
        self.update = alive[0].update
        by_place = dict(zip(self._alive, states, strict=True))
        self.state = self._seed_programs.place([by_place.get(i, states[0]) for i in range(len(self.members))])

    def _open(self, stack: ExitStack) -> RunLog | None:
        stack.enter_context(told(_folder(self.members[self._alive[0]]), self.how_to_go_on, self._see_folder))
        for i, member in enumerate(self.members):
            assert member._claim is not None
            stack.enter_context(member._claim.running())
            if i in self._alive:
                self._logs[i] = stack.enter_context(RunLog(_folder(member), self.update))
        return None

    def _see_folder(self) -> None:
        """End the run where a seed's folder was taken away, and save every seed."""
        if not any(is_gone(_folder(self.members[i])) for i in self._alive):
            return
        told = []
        for i, state in self._going_on():
            member, run_dir = self.members[i], _folder(self.members[i])
            if is_gone(run_dir):
                told.append(rescue(run_dir, member.run_config, state))
            else:
                with suppress(OSError, CheckpointWriteError):
                    _checkpoints(member).save(int(state.update), state)
        raise RunFolderError(f"stopped: {'; '.join(told)}")

    def _advance(self, log: RunLog | None) -> HostMetrics:
        """Do one chunk of updates of every seed, and log it in every folder."""
        length = self._chunk_length()
        started = time.perf_counter()
        self.state, buffer = self._run_chunk(length, self.state)
        metrics = fetch(buffer, length)
        seconds = max(time.perf_counter() - started, 1e-9)
        for i in tuple(self._alive):
            own = {name: values[i] for name, values in metrics.items()}
            try:
                self.members[i]._record(own, seconds, self._logs[i])
            except NonFiniteError as error:
                self._end(i, str(error))
            self._logs[i].flush()
        self.update += length
        if not self._alive:
            raise NonFiniteError(self.failures[-1])
        alive = [self.members[i] for i in self._alive]
        self._recent_return = float(np.mean([member._recent_return for member in alive]))
        self.skipped = sum(member.skipped for member in self.members)
        self.best_return = float(np.fmax.reduce([member.best_return for member in alive]))
        self._show(length, seconds)
        return metrics

    def _evaluate(self, log: RunLog | None) -> None:
        for i, state in self._going_on():
            self.members[i].state = state
            self.members[i]._evaluate(self._logs[i])

    def _run_chunk(self, length: int, state: TrainState) -> tuple[TrainState, Metrics]:
        result: tuple[TrainState, Metrics] = self._seed_programs.run_chunk(
            state, jnp.int32(length), buffer_size=self._buffer_size
        )
        return result


class _OfSeed(Silent):
    """Tells the faults of one seed where those of all are told."""

    def __init__(self, seed: int, reporter: Reporter):
        self._seed, self._reporter = seed, reporter

    def warn(self, text: str) -> None:
        self._reporter.warn(f"seed {self._seed}: {text}")


def _member(run: RunConfig, seed: int, run_dir: Path, reporter: Reporter) -> Trainer:
    """Return a trainer of one seed that has a folder, but neither state nor program."""
    member = Trainer.__new__(Trainer)
    member._prepare(dataclasses.replace(run, seed=seed), run_dir, _OfSeed(seed, reporter))
    member._split_over(1)
    return member


def _claim(member: Trainer, goes_on: bool) -> bool:
    """Take a seed's folder; tell whether it is a new one."""
    assert member.run_dir is not None
    try:
        member._claim = claim_new(member.run_dir, member.run_config)
    except FolderTakenError as taken:
        if not goes_on:
            raise
        taken.refuse_another(member.run_config)
        member._claim = claim_existing(member.run_dir)
        return False
    return True


def _checkpoints(member: Trainer) -> Checkpoints:
    assert member.checkpoints is not None
    return member.checkpoints


def _folder(member: Trainer) -> Path:
    assert member.run_dir is not None
    return member.run_dir


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Map a function over a leading axis of length one, without batching it."""
    return lambda tree: jax.tree.map(
        lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], tree))
    )


def _on_all(mesh: Mesh, run: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function of seeds' arrays and one number on every device, on its own seeds; nothing crosses."""
    mapped: Callable[..., Any] = jax.shard_map(
        run, mesh=mesh, in_specs=(P(_AXIS), P()), out_specs=P(_AXIS), check_vma=False
    )
    return mapped
