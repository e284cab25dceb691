"""The training of ``make_train``, run from the host in chunks: progress, logs, evaluation, checkpoints."""

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

from s5_adapters.core.files.weights import as_policy, save_policy
from s5_adapters.purejax.algorithms.algorithm import Algorithm, TrainState
from s5_adapters.purejax.algorithms.metrics import Metrics
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.claim import Claim, FolderTakenError, claim_existing, claim_new
from s5_adapters.purejax.evaluate import Evaluation, Evaluator
from s5_adapters.purejax.interrupt import Interrupts
from s5_adapters.purejax.logging import RunLog, read_log
from s5_adapters.purejax.progress import Reporter, Silent, Status
from s5_adapters.purejax.restore import to_portable
from s5_adapters.purejax.run_folder import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    RunConfig,
    RunOptions,
    read_config,
)
from s5_adapters.purejax.start import start_from
from s5_adapters.purejax.training import Programs, TrainResult
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
    """SIGINT or SIGTERM ended the run; the message says where it was saved and how to go on."""

    def __init__(self, message: str, signal_number: signal.Signals):
        super().__init__(message)
        self.signal_number = signal_number


class Trainer:
    """A training run on the host, with the bits of ``jax.jit(make_train(config))(jax.random.key(seed))``.

    The update is compiled once, with the number of updates of a chunk as an argument, so chunks of any length
    run the same program.

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
        reporter: shows progress.

    Attributes:
        config: what is trained.
        state: the ``TrainState`` now.
        update: updates done.
        best_evaluation: largest mean return of an evaluation so far; NaN before any.
        best_return: largest mean episodic return of an update so far (MMER, POPGym's score); NaN before any.
        compile_seconds: what tracing and compiling took.

    Raises:
        ValueError: one line, for a configuration that cannot be built, a folder that cannot be used, and
            weights that cannot be read or belong to another network.
    """

    _claim: Claim | None = None

    def __init__(
        self,
        config: Algorithm,
        *,
        seed: int = 0,
        weights: str | None = None,
        run_dir: str | Path | None = None,
        options: RunOptions | None = None,
        reporter: Reporter | None = None,
    ):
        run_config = RunConfig(config.completed(), seed, weights, options or RunOptions())
        self._prepare(run_config, run_dir, reporter)
        if self.run_dir is not None:
            self._claim = claim_new(self.run_dir, self.run_config)
        try:
            self.state = self._first_state()
            self._compile()
        except BaseException:
            if self._claim is not None:
                self._claim.abandon()
            raise

    @classmethod
    def resume(cls, run_dir: str | Path, *, reporter: Reporter | None = None) -> Self:
        """Continue the run in ``run_dir`` from its latest checkpoint, with the bits it would have had anyway.

        Raises:
            ValueError: one line, where the folder holds no run, a run that is going on, or a checkpoint of
                another configuration.
        """
        if Path(run_dir).is_file():
            raise ValueError(f"{run_dir}: is a file, expected the folder of a run")
        trainer = cls.__new__(cls)
        trainer._prepare(read_config(run_dir), run_dir, reporter)
        trainer._claim = claim_existing(Path(run_dir))
        try:
            trainer._restore()
            trainer._compile()
        except BaseException:
            trainer._claim.release()
            raise
        return trainer

    def run(self) -> TrainResult:
        """Train to the end of the configured run.

        Returns:
            The last state, and the metrics of the updates done by this call, as numpy arrays.

        Raises:
            NonFiniteError: at the first number that is not finite.
            InterruptedRunError: on SIGINT or SIGTERM, once the chunk is done and saved.
            FolderTakenError: the folder has meanwhile become another's, or its run has gone on elsewhere.
        """
        history: list[HostMetrics] = []
        with ExitStack() as stack:
            stack.callback(self._reporter.close)
            if self.run_dir is not None:
                stack.enter_context(self._folder_of_its_own(self.run_dir))
            log = None if self.run_dir is None else stack.enter_context(self._open_log(self.run_dir))
            interrupts = stack.enter_context(Interrupts())
            while self.update < self.config.num_updates:
                history.append(self._advance(log))
                if self.options.evaluate_every and self.update % self.options.evaluate_every == 0:
                    self._evaluate(log)
                if log is not None:
                    log.flush()
                    if self.update == self._num_updates or self.update % self._checkpoint_every == 0:
                        self.save()
                if interrupts.received is not None:
                    raise InterruptedRunError(self._farewell(interrupts.received), interrupts.received)
        metrics: Any = {name: _concatenate(history, name) for name in self.config.METRICS}
        return TrainResult(self.state, metrics)

    def evaluate(self) -> Evaluation:
        """Play ``evaluation_episodes`` fresh episodes with the policy as it is; training is not touched."""
        key = jax.random.fold_in(jax.random.fold_in(self._key, _EVALUATION_STREAM), self.update)
        return self._evaluator(self.state.params, self.state.carry.obs_stats, key)

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

        Raises:
            ValueError: the trainer has no ``run_dir``.
        """
        if self.checkpoints is None:
            raise ValueError("run_dir: got None, expected a folder to keep checkpoints in")
        return self.checkpoints.save(self.update, self.state)

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self.update * self.config.steps_per_update

    def _prepare(self, run_config: RunConfig, run_dir: str | Path | None, reporter: Reporter | None) -> None:
        self.run_config, self.config = run_config, run_config.training
        self.options = run_config.options
        self.run_dir = None if run_dir is None else Path(run_dir)
        if self.options.wandb:
            require_wandb()
        self._programs = Programs.of(self.config)
        self.problem = self._programs.problem
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
        self._reporter = reporter or Silent()
        self._evaluator = Evaluator(self.problem, self.options.evaluation_episodes)
        self._key = jax.random.key(run_config.seed)
        self._seconds = 0.0
        self._recent_return = math.nan
        self._adaptive_chunk = 1

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
        return start_from(state, as_policy(weights), self.problem, self.config)

    def _restore(self) -> None:
        assert self.checkpoints is not None
        assert self.run_dir is not None
        if self.checkpoints.latest() is None:  # stopped before the first checkpoint: nothing is lost but time
            self.state = self._first_state()
            return
        self.state = self.checkpoints.restore(jax.eval_shape(self._init, self._key))
        self.update = int(self.state.update)
        for row in read_log(self.run_dir):
            if row["update"] <= self.update and "seconds" in row:
                self._seconds = row["seconds"]
                self._note_return(row["episode_return"])
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
        metrics = {name: np.asarray(values)[:length] for name, values in buffer.items()}
        seconds = time.perf_counter() - started
        self._check_finite(metrics)

        self._adaptive_chunk = max(1, round(_CHUNK_SECONDS * length / seconds))
        self._seconds += seconds
        steps_per_update = self.config.steps_per_update
        speed = length * steps_per_update / seconds
        for i in range(length):
            self.update += 1
            numbers = {name: float(metrics[name][i]) for name in self.config.METRICS if name != "fault"}
            self._note_return(numbers["episode_return"])
            if log is not None:
                log.write(
                    self.update, self.step, numbers | {"seconds": self._seconds, "steps_per_second": speed}
                )
        left = (self._num_updates - self.update) * steps_per_update / speed
        self._reporter.show(
            Status(self.update, self._num_updates, self.step, self._recent_return, speed, seconds_left=left)
        )
        return metrics

    def _chunk_length(self) -> int:
        """Count the updates until the host next has something to do."""
        wished = self.options.chunk_updates or self._adaptive_chunk
        stops = [self._num_updates, self.update + min(wished, self._buffer_size)]
        if self.run_dir is not None:
            stops.append(_next_multiple(self.update, self._checkpoint_every))
        if self.options.evaluate_every:
            stops.append(_next_multiple(self.update, self.options.evaluate_every))
        return min(stops) - self.update

    def _check_finite(self, metrics: HostMetrics) -> None:
        (bad,) = np.nonzero(metrics["fault"] >= 0)
        if not bad.size:
            return
        update = self.update + int(bad[0]) + 1
        name = self.config.name_fault(int(metrics["fault"][bad[0]]))
        kept = "no checkpoint was kept"
        if self.checkpoints is not None and self.checkpoints.latest() is not None:
            kept = f"last good checkpoint: {self.checkpoints.path(self.checkpoints.updates()[-1])}"
        raise NonFiniteError(
            f"stopped: {self.config.env_id}: {name} is not finite at update {update} of {self._num_updates} "
            f"(step {update * self.config.steps_per_update:,}); {kept}"
        )

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
        return f"{where}; saved to {self.save()}; go on with: s5-adapters train --resume {self.run_dir}"


def _next_multiple(number: int, step: int) -> int:
    return (number // step + 1) * step


def _concatenate(history: list[HostMetrics], name: str) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(metrics[name] for metrics in history)])
