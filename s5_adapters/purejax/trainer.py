"""The training of ``make_train``, run from the host in chunks: progress, logs, evaluation, checkpoints."""

import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core import checks
from s5_adapters.core.files.weights import as_policy, save_policy
from s5_adapters.purejax.algorithms.algorithm import Algorithm, TrainState
from s5_adapters.purejax.algorithms.metrics import FAULT_METRICS, Metrics
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.claim import Claim, FolderTakenError, claim_existing, claim_new
from s5_adapters.purejax.evaluate import Evaluation, Evaluator
from s5_adapters.purejax.faults import RunFolderError, is_gone, kept_in, rescue, told
from s5_adapters.purejax.interrupt import Interrupts, TimeLimit
from s5_adapters.purejax.logging import RunLog, salvage_log
from s5_adapters.purejax.problem import build_problem
from s5_adapters.purejax.processes import Decision, agree, are_several, first_number, from_first, is_first
from s5_adapters.purejax.progress import Reporter, Silent, Status
from s5_adapters.purejax.restore import to_portable
from s5_adapters.purejax.run_folder import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    RunConfig,
    RunOptions,
    read_config,
)
from s5_adapters.purejax.split import split_of
from s5_adapters.purejax.split_programs import on_one_device, programs_on, refuse_other_split
from s5_adapters.purejax.start import start_from
from s5_adapters.purejax.training import TrainResult
from s5_adapters.purejax.wandb_log import WandbLog, require_wandb

HostMetrics = dict[str, np.ndarray]

_MAX_CHUNK = 256
_CHUNK_SECONDS = 0.5
_EVALUATION_STREAM = (
    0x5E7A  # folded into the run's key: evaluations take nothing from the training's randomness
)
_DEFAULT_CHECKPOINTS = 10


class NonFiniteError(RuntimeError):
    """A number was infinite or not a number; the message says which, at which update, and what is kept."""


class InterruptedRunError(RuntimeError):
    """SIGINT or SIGTERM ended the run; the message says where it was saved and how to go on.

    Attributes:
        signal_number: which of them.
    """

    def __init__(self, message: str, signal_number: signal.Signals):
        super().__init__(message)
        self.signal_number = signal_number


class Trainer:
    """A training run on the host, with the bits of ``jax.jit(make_train(config))(jax.random.key(seed))``.

    The update is compiled once, with the number of updates of a chunk as an argument, so chunks of any length
    run the same program.

    On several devices each keeps an equal share of the environments, and the devices exchange gradients and
    statistics alone. The run is that of one device but for rounding and for the shuffles into minibatches,
    which every device draws for its own environments; resumed on another number of devices it goes on
    likewise, with the shuffles of the devices that it was begun on where those can be shared out.

    Building a ``Trainer`` claims the run's folder (see ``claim``) and then compiles. Where that goes wrong or
    is interrupted, no folder is left. The claim is held until ``run`` ends.

    Args:
        config: what to train.
        seed: the run's key is ``jax.random.key(seed)``.
        weights: policy file of the same network to start from, with its observation statistics; everything
            else begins as in any run.
        run_dir: an unused folder, made if need be, for ``config.json``, ``log.jsonl``, TensorBoard events and
            checkpoints; None keeps nothing.
        options: how the run is watched and kept.
        reporter: shows progress; without one, faults alone are told, on standard error.
        devices: how many devices the environments are split over.

    Attributes:
        config: what is trained.
        split: over how many devices.
        state: the ``TrainState`` now.
        update: updates done.
        best_evaluation: largest mean return of an evaluation so far; NaN before any.
        best_return: largest mean episodic return of an update so far (MMER, POPGym's score); NaN before any.
        compile_seconds: what tracing and compiling took.
        skipped: gradient steps not taken so far, since the gradient was not finite.

    Raises:
        ValueError: one line, for a configuration that cannot be built, a folder that cannot be used, and
            weights that cannot be read or belong to another network.
    """

    _claim: Claim | None = None
    _adaptive_chunk: int

    def __init__(
        self,
        config: Algorithm,
        *,
        seed: int = 0,
        weights: str | None = None,
        run_dir: str | Path | None = None,
        options: RunOptions | None = None,
        reporter: Reporter | None = None,
        devices: int = 1,
    ):
        run_config = RunConfig(config.completed(), seed, weights, options or RunOptions(), devices)
        self._prepare(run_config, run_dir, reporter)
        if self.run_dir is not None and self._is_first:
            self._claim = claim_new(self.run_dir, self.run_config)
        try:
            self._split_over(devices)
            self._restore()
            self._compile()
        except BaseException:
            if self._claim is not None:
                self._claim.abandon()
            raise

    @classmethod
    def resume(
        cls,
        run_dir: str | Path,
        *,
        reporter: Reporter | None = None,
        devices: int | None = None,
        options: RunOptions | None = None,
    ) -> Self:
        """Continue the run in ``run_dir`` from its latest checkpoint, bit-for-bit as if uninterrupted.

        Args:
            run_dir: the folder of the run.
            reporter: shows progress.
            devices: to resume on another number of devices than it was begun on; the bits are then others.
            options: how to watch and keep it from now on; None for the ones that it was begun with.

        Raises:
            ValueError: one line, where the folder holds no run, a run that is going on, a checkpoint of
                another configuration, or one that cannot resume on these devices.
        """
        if Path(run_dir).is_file():
            raise ValueError(f"{run_dir}: is a file, expected the folder of a run")
        trainer = cls.__new__(cls)
        run_config = read_config(run_dir)
        if options is not None:
            run_config = dataclasses.replace(run_config, options=options)
        trainer._prepare(run_config, run_dir, reporter)
        if trainer._is_first:
            trainer._claim = claim_existing(Path(run_dir))
        try:
            trainer._split_over(devices)
            trainer._restore()
            trainer._compile()
        except BaseException:
            if trainer._claim is not None:
                trainer._claim.release()
            raise
        return trainer

    def run(self, time_limit: TimeLimit | None = None, interrupts: Interrupts | None = None) -> TrainResult:
        """Train to the end of the configured run.

        SIGUSR1 saves a checkpoint, and the run goes on.

        Args:
            time_limit: before which to save and return; ``update`` then says how far the run came.
            interrupts: where signals are remembered, with one that came while the trainer was built.

        Returns:
            The last state, and the metrics of the updates done by this call, as numpy arrays.

        Raises:
            NonFiniteError: at the first number that is not finite.
            InterruptedRunError: on SIGINT or SIGTERM, once the chunk is done and saved.
            RunFolderError: the folder is full, read-only or gone.
            FolderTakenError: the folder has meanwhile become another's, or its run has gone on elsewhere.
        """
        history: list[HostMetrics] = []
        with ExitStack() as stack:
            stack.callback(self._reporter.close)
            log = self._open(stack)
            interrupts = stack.enter_context(interrupts or Interrupts())
            while self.update < self._num_updates:
                started = time.monotonic()
                history.append(self._advance(log))
                is_test_due = self.options.evaluate_every and self.update % self.options.evaluate_every == 0
                if is_test_due and self._is_first:
                    self._evaluate(log)
                if log is not None:
                    log.flush()
                if time_limit is not None:
                    time_limit.note(chunk=time.monotonic() - started)
                is_over = self.update == self._num_updates
                is_late = not is_over and time_limit is not None and time_limit.is_near()
                decided = agree(
                    Decision(self._adaptive_chunk, interrupts.received or 0, interrupts.wants_save, is_late)
                )
                interrupts.wants_save = False
                self._adaptive_chunk = decided.next_chunk
                if self.run_dir is not None:
                    self._see_folder()
                    is_due = is_over or decided.is_late or self.update % self._checkpoint_every == 0
                    if is_due or decided.saves:
                        started = time.monotonic()
                        self.save()
                        if time_limit is not None:
                            time_limit.note(save=time.monotonic() - started)
                if decided.signal_number:
                    number = signal.Signals(decided.signal_number)
                    raise InterruptedRunError(self._farewell(number), number)
                if decided.is_late:
                    break
        metrics: Any = {name: _concatenate(history, name) for name in self.config.METRICS}
        return TrainResult(self.state, metrics)

    def evaluate(self) -> Evaluation:
        """Play ``evaluation_episodes`` fresh episodes with the policy as it is; training is not touched."""
        key = jax.random.fold_in(jax.random.fold_in(self._key, _EVALUATION_STREAM), self.update)
        params, obs_stats = self.state.params, self.state.carry.obs_stats
        if self.split.devices > 1:
            params, obs_stats = on_one_device((params, obs_stats))
        return self._evaluator(params, obs_stats, key)

    def profile(self, folder: str | Path, *, updates: int = 2) -> Path:
        """Rehearse the next updates under JAX's profiler; the run itself is not touched.

        Args:
            folder: where the trace goes.
            updates: how many updates to trace; every operation of each is in the trace.

        Returns:
            The trace, a ``perfetto_trace.json.gz`` that https://ui.perfetto.dev opens.
        """
        updates = min(updates, self._buffer_size)
        state = jax.tree.map(jnp.copy, self.state)
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            jax.block_until_ready(self._run_chunk(updates, state))
        return max(Path(folder).rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)

    def save(self) -> Path:
        """Write a checkpoint of the state as it is now and return its folder.

        Of several processes that train together, all must call it, and the first writes.

        Raises:
            ValueError: the trainer has no ``run_dir``.
        """
        if self.checkpoints is None:
            raise ValueError("run_dir: got None, expected a folder to keep checkpoints in")
        state = self._programs.whole(self.state)
        return (
            self.checkpoints.save(self.update, state)
            if self._is_first
            else self.checkpoints.path(self.update)
        )

    @property
    def how_to_go_on(self) -> str:
        """The command that goes on with the run."""
        return f"s5-adapters train --resume {self.run_dir}"

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self.update * self.config.steps_per_update

    def _prepare(
        self,
        run_config: RunConfig,
        run_dir: str | Path | None,
        reporter: Reporter | None,
    ) -> None:
        self.run_config, self.config = run_config, run_config.training
        self.options = run_config.options
        self.run_dir = None if run_dir is None else Path(run_dir)
        if self.options.wandb:
            require_wandb()
        self.problem = build_problem(self.config)
        self.checkpoints = None
        if self.run_dir is not None:
            self.checkpoints = Checkpoints(self.run_dir / CHECKPOINTS_NAME, self.options.keep_checkpoints)
        self.update = 0
        self.best_return = math.nan
        self.best_evaluation = math.nan
        self._num_updates = self.config.num_updates
        self._buffer_size = min(self._num_updates, _MAX_CHUNK)
        self._checkpoint_every = self.options.checkpoint_every or max(
            1, self._num_updates // _DEFAULT_CHECKPOINTS
        )
        self._is_first = is_first()
        self._reporter = reporter if reporter is not None and self._is_first else Silent()
        self._evaluator = Evaluator(self.problem, self.options.evaluation_episodes)
        self._key = jax.random.key(run_config.seed)
        self._seconds = 0.0
        self._recent_return = math.nan
        self._adaptive_chunk = 1
        self.skipped = 0

    def _split_over(self, devices: int | None) -> None:
        """Build the programs for so many devices; None for as many as the run was begun on.

        Of several processes the first alone has seen whether and how the run was begun.
        """
        begun = first_number(self.run_config.devices)
        self.run_config = dataclasses.replace(self.run_config, devices=begun)
        self.split = split_of(begun, begun if devices is None else checks.integer("devices", devices))
        if devices is None and begun > len(jax.devices()):
            raise ValueError(
                f"{self.run_dir}: its run was begun on {begun} devices, and there are {len(jax.devices())}: "
                f"go on with --devices {len(jax.devices())}"
            )
        elif self.split.devices != begun:
            refuse_other_split(self.config)
        self._programs = programs_on(self.config, self.split)

    def _open(self, stack: ExitStack) -> RunLog | None:
        """Take the folder, and open its log, until the stack unwinds."""
        if self.run_dir is None or not self._is_first:
            return None
        stack.enter_context(told(self.run_dir, self.how_to_go_on, self._see_folder))
        stack.enter_context(self._folder_of_its_own(self.run_dir))
        return stack.enter_context(self._open_log(self.run_dir))

    def _see_folder(self) -> None:
        """End the run where its folder was taken away, and save what there is to save."""
        if self._is_first and self.run_dir is not None and is_gone(self.run_dir):
            state = None if are_several() else self.state
            raise RunFolderError(f"stopped: {rescue(self.run_dir, self.run_config, state)}")

    @contextmanager
    def _folder_of_its_own(self, run_dir: Path) -> Iterator[None]:
        """Hold the folder while training, and let go of it afterwards."""
        claim, self._claim = self._claim or claim_existing(run_dir), None
        with claim.running():
            latest = self.checkpoints.latest() if self.checkpoints is not None else None
            if latest is not None and latest > self.update:
                gone_on = f"its run has gone on to update {latest} without this trainer, which is at"
                raise FolderTakenError(run_dir, f"{gone_on} {self.update}; resume it")
            yield

    def _open_log(self, run_dir: Path) -> RunLog:
        if not self.options.wandb:
            return RunLog(run_dir, self.update)
        return RunLog(run_dir, self.update, [WandbLog(run_dir, self.run_config.to_dict())])

    def _init(self, key: jax.Array) -> TrainState:
        rate = jnp.float32(self.config.learning_rate)
        state: TrainState = self._programs.init_state(key, rate)
        return state

    def _first_state(self) -> TrainState:
        state, weights = self._init(self._key), self.run_config.weights
        if weights is None:
            return state
        return self._programs.place(start_from(state, as_policy(weights), self.problem, self.config))

    def _restore(self) -> None:
        """Take the state from the newest checkpoint, of which the first process alone knows; or the first."""
        state = None
        has_any = self.checkpoints is not None and self.checkpoints.latest() is not None
        if are_several() or has_any:
            like = jax.eval_shape(self._init, self._key)
            if self._is_first and has_any and self.checkpoints is not None:
                state, damaged = self.checkpoints.restore_newest_whole(like)
                for line in damaged:
                    self._warn(line)
            state = from_first(state, like)
        if state is None:  # new, or stopped before the first checkpoint: nothing is lost but time
            self.state = self._first_state()
            return
        self._go_on(self._programs.place(state))

    def _go_on(self, state: TrainState) -> None:
        """Take a state, and what the log has of the way to it."""
        self.state, self.update = state, int(state.update)
        if self.run_dir is None or not self._is_first:
            return
        rows, damage = salvage_log(self.run_dir)
        if damage:
            self._warn(f"{damage}; going on from update {self.update} with the rows that can be read")
        for row in rows:
            if row["update"] <= self.update and "seconds" in row:
                self._seconds = row["seconds"]
                self._note_return(row.get("episode_return"))
                self.skipped += int(row.get("skipped") or 0)
            if row["update"] <= self.update and row.get("evaluation_return") is not None:
                self.best_evaluation = float(np.fmax(self.best_evaluation, row["evaluation_return"]))

    def _compile(self) -> None:
        """Compile the one program for chunks of every length, by running it for none."""
        self._reporter.say("compiling ...")
        started = time.perf_counter()
        self.state, _ = jax.block_until_ready(self._run_chunk(0, self.state))
        self.compile_seconds = time.perf_counter() - started

    def _run_chunk(self, length: int, state: TrainState) -> tuple[TrainState, Metrics]:
        result: tuple[TrainState, Metrics] = self._programs.run_chunk(
            state, jnp.int32(length), buffer_size=self._buffer_size
        )
        return result

    def _advance(self, log: RunLog | None) -> HostMetrics:
        """Do one chunk of updates, check it, log it and show it."""
        length = self._chunk_length()
        started = time.perf_counter()
        self.state, buffer = self._run_chunk(length, self.state)
        metrics = fetch(buffer, length)
        seconds = max(time.perf_counter() - started, 1e-9)
        self._record(metrics, seconds, log)
        self._show(length, seconds)
        return metrics

    def _record(self, metrics: HostMetrics, seconds: float, log: RunLog | None) -> None:
        """Check the numbers of a chunk, and log them."""
        self._check_finite(metrics, log)
        self._note_skipped(int(metrics["skipped"].sum()) if "skipped" in metrics else 0)
        self._seconds += seconds
        length = len(metrics["fault"])
        speed = length * self.config.steps_per_update / seconds
        left_out = FAULT_METRICS if self.config.on_nonfinite == "skip" else (*FAULT_METRICS, "skipped")
        for i in range(length):
            self.update += 1
            numbers = {name: float(metrics[name][i]) for name in self.config.METRICS if name not in left_out}
            self._note_return(numbers["episode_return"])
            if log is not None:
                log.write(
                    self.update, self.step, numbers | {"seconds": self._seconds, "steps_per_second": speed}
                )

    def _show(self, length: int, seconds: float) -> None:
        """Show where the run is after a chunk, and choose the next one's length."""
        self._adaptive_chunk = max(1, round(_CHUNK_SECONDS * length / seconds))
        speed = length * self.config.steps_per_update / seconds
        left = (self._num_updates - self.update) * self.config.steps_per_update / speed
        self._reporter.show(
            Status(self.update, self._num_updates, self.step, self._recent_return, speed, seconds_left=left)
        )

    def _chunk_length(self) -> int:
        """Count the updates until the host next has something to do."""
        wished = self.options.chunk_updates or self._adaptive_chunk
        stops = [self._num_updates, self.update + min(wished, self._buffer_size)]
        if self.run_dir is not None:
            stops.append(_next_multiple(self.update, self._checkpoint_every))
        if self.options.evaluate_every:
            stops.append(_next_multiple(self.update, self.options.evaluate_every))
        return min(stops) - self.update

    def _check_finite(self, metrics: HostMetrics, log: RunLog | None) -> None:
        (bad,) = np.nonzero(metrics["fault"] >= 0)
        if not bad.size:
            return
        update = self.update + int(bad[0]) + 1
        fault, env, step = (int(metrics[name][bad[0]]) if name in metrics else -1 for name in FAULT_METRICS)
        where = f", environment {env} at its step {(update - 1) * self.config.num_steps + step + 1:,}"
        at = update * self.config.steps_per_update
        line = (
            f"stopped: {self.config.env_id}: {self.config.name_fault(fault)} is not finite at update "
            f"{update} of {self._num_updates} (step {at:,})"
            f"{where if env >= 0 else ''}; {kept_in(self.run_dir)}"
        )
        if log is not None:
            log.write_fault(update, at, line)
        raise NonFiniteError(line)

    def _note_skipped(self, count: int) -> None:
        if count and not self.skipped:
            self._warn(f"after update {self.update}: a gradient was not finite, and its step not taken")
        self.skipped += count

    def _warn(self, text: str) -> None:
        """Tell a fault that the run survives, once for all processes."""
        if self._is_first:
            self._reporter.warn(text)

    def _evaluate(self, log: RunLog | None) -> None:
        result = self.evaluate()
        self._reporter.say(
            f"update {self.update}: {len(result.returns)} evaluation episodes, "
            f"return {result.mean:.3f} ± {result.standard_error:.3f}"
        )
        if self.options.keep_best and self.run_dir is not None and not result.mean <= self.best_evaluation:
            self.best_evaluation = result.mean
            policy = to_portable(self.run_config, self.problem, self.state, self.best_return)
            save_policy(self.run_dir / BEST_NAME, policy)
        if log is not None:
            numbers = {
                "evaluation_return": result.mean,
                "evaluation_standard_error": result.standard_error,
                "evaluation_length": float(result.lengths.mean()),
            }
            log.write(self.update, self.step, numbers)

    def _note_return(self, episode_return: float | None) -> None:
        if episode_return is not None and not math.isnan(episode_return):
            self._recent_return = episode_return
            self.best_return = max(
                episode_return, -math.inf if math.isnan(self.best_return) else self.best_return
            )

    def _farewell(self, signal_number: signal.Signals) -> str:
        where = f"stopped by {signal_number.name} after update {self.update} of {self._num_updates}"
        if self.run_dir is None:
            return f"{where}; nothing was kept, since the run has no folder"
        return f"{where}; saved to {self.save()}; go on with: {self.how_to_go_on}"


def fetch(buffer: Metrics, length: int) -> HostMetrics:
    """Copy the first ``length`` updates of a chunk's buffer, along the last axis.

    A view would keep the whole buffer, hundreds of updates for every chunk of one, until the run ends.
    """
    return {name: np.asarray(values)[..., :length].copy() for name, values in buffer.items()}


def _next_multiple(number: int, step: int) -> int:
    return (number // step + 1) * step


def _concatenate(history: list[HostMetrics], name: str) -> np.ndarray:
    return np.concatenate([metrics[name] for metrics in history] or [np.zeros(0, np.float32)], axis=-1)
