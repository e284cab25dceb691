"""The command line: ``s5-adapters train | evaluate | status | plot | export | clone | bench | ...``.

Every command is a dataclass whose fields are its options and whose ``run`` does it. Bad input ends with one
line on standard error and exit code 2, a training that went wrong with 1, an interrupted one with 128 plus
the signal's number.
"""

import contextlib
import itertools
import math
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from s5_adapters.bench.command import Report, Run
from s5_adapters.cli_errors import UsageError, require_writable, usage_errors
from s5_adapters.cli_modules import Command, import_modules
from s5_adapters.cli_settings import Settings, load_base, pairs, settings_registry
from s5_adapters.core import checks
from s5_adapters.purejax import processes
from s5_adapters.reproduce.command import Reproduce

if TYPE_CHECKING:
    from s5_adapters.purejax import Algorithm, RestoredPolicy, RunConfig, Trainer
    from s5_adapters.purejax.interrupt import Interrupts, TimeLimit
    from s5_adapters.purejax.progress import Reporter
    from s5_adapters.purejax.seeds import SeedsTrainer

AUTO = "auto"


@dataclass(frozen=True)
class Train(Command):
    """Train a policy; everything about the run goes into one folder."""

    began: ClassVar[float | None] = None
    """When the process did, from where --max-time counts; None for when ``run`` is called."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]
    config: str | None = None
    """Where the other options start from: a JSON or TOML file, the folder of a run, "paper", or one of
    "meta-cartpole", "meta-control", "meta-dmc", each as published, or with "-small" for two cores."""
    resume: str | None = None
    """Continue the run in this folder from its latest checkpoint, as it was configured; --devices alone may
    be another number. "auto": start the run that the other options say, or continue it where it was begun
    already, so that a scheduler can give the same command again; how it is watched and kept may change."""
    devices: int | None = None
    """Split the environments over so many devices; by default over all, and with --resume over as many as
    the run was begun on."""
    seeds: int | None = None
    """Train so many seeds, --seed the first of them, as one program, shared out over --devices (at most as
    many as divide them); each has a folder of its own, in --run-dir where that is given."""
    distributed: bool = False
    """This is one of several processes that train one run on all their devices (docs/scaling.md). Under Slurm
    and Open MPI they find each other, elsewhere by the next three options. The first logs and saves."""
    coordinator: str | None = None
    """With --distributed: HOST:PORT at which the first process listens."""
    num_processes: int | None = None
    """With --distributed: how many processes there are."""
    process_id: int | None = None
    """With --distributed: which of them this is, from 0."""
    max_time: str | None = None
    """Save and stop, with exit code 0, before the command has taken so long, starting and compiling
    included: 3h50m, 45m, 90s."""
    run_dir: Path | None = None
    """Folder of the run, not yet used; by default runs/ENV-MEMORY-seedN, or with -2, -3, ... where that
    holds a run of another configuration."""
    match_params: bool = False
    """Widen the memory to the number of parameters that S5 would have at the width and depth given."""
    profile: bool = False
    """Before training, rehearse two updates under JAX's profiler; the trace goes into the run's folder."""
    dry_run: bool = False
    """Say what the run would take: parameters, memory, time to compile and of an update. Nothing is trained
    or written."""
    quiet: bool = False
    """Show no progress, only faults, on standard error."""

    def run(self) -> int:
        """Train, then say where everything is."""
        from s5_adapters.purejax.interrupt import Interrupts

        with Interrupts().saving() as interrupts:
            return self._run(interrupts)

    def _run(self, interrupts: "Interrupts") -> int:
        from s5_adapters.purejax import Trainer
        from s5_adapters.purejax.interrupt import TimeLimit, parse_duration
        from s5_adapters.purejax.progress import make_reporter

        reporter = make_reporter(enabled=not self.quiet)
        with usage_errors():
            if self.distributed and not processes.are_connected():
                raise ValueError(
                    "distributed: expected to be started by s5-adapters or python -m s5_adapters"
                )
            limit = None if self.max_time is None else TimeLimit(parse_duration(self.max_time), self.began)
            if self.resume not in (None, AUTO):
                others = self.config or self.run_dir or self.match_params or self.dry_run or self.seeds
                if self.settings.changed or others:
                    raise ValueError(
                        "--resume continues a run as it was configured: "
                        "it takes --devices, --max-time, --quiet, --profile and --import"
                    )
                trainer = Trainer.resume(str(self.resume), reporter=reporter, devices=self.devices)
            else:
                run = self.settings.resolve()
                if self.match_params:
                    run = replace(run, training=matched_to_s5(run.training))
                if self.seeds is not None:
                    for name in ("profile", "dry_run"):
                        if getattr(self, name):
                            raise ValueError(f"{name.replace('_', '-')}: expected it without --seeds")
                    return train_seeds(
                        new_seeds_trainer(
                            run, self.seeds, self.devices, self.run_dir, reporter, self.resume == AUTO
                        ),
                        limit,
                        interrupts,
                    )
                run = replace(run, devices=device_count() if self.devices is None else self.devices)
                if self.dry_run:
                    return print_estimate(run.training, run.devices)
                trainer = new_trainer(run, self.run_dir, reporter, goes_on=self.resume == AUTO)
        if self.profile and trainer.run_dir is not None:
            trace = trainer.profile(trainer.run_dir / "profile")
            print(f"wrote {trace}: open it at https://ui.perfetto.dev")
        return train(trainer, limit, interrupts)


@dataclass(frozen=True)
class Evaluate(Command):
    """Play whole episodes with a trained policy; with --per-trial, whole tasks with those of several runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folder of a run, or a policy file (.safetensors); with --per-trial, folders of runs on one
    environment."""
    env_id: str | None = None
    """Of a policy file: the environment to play in; by default the one that it was trained in."""
    env_kwargs: Annotated[dict[str, Any], pairs({})] = field(default_factory=dict)
    """Of a policy file: keyword arguments of the environment, such as action_mask=true."""
    episodes: int = 100
    """Number of episodes; with --per-trial, of each family."""
    checkpoint: int | None = None
    """The checkpoint after this many updates; by default the newest that is whole."""
    deterministic: bool = False
    """Take the most likely action instead of sampling."""
    seed: int = 0
    """Seed of the episodes."""
    render: Path | None = None
    """Also play one episode into this animation, a .gif file."""
    per_trial: bool = False
    """Print the return of each trial of a task and the reward of each step, by family; runs that differ in
    the seed alone share a line."""
    held_out: bool = False
    """With --per-trial: play the families held out from training too."""
    trials: int | None = None
    """With --per-trial: trials of a task; by default as many as in training."""
    json: Path | None = None
    """With --per-trial: write everything into this file."""
    plot: Path | None = None
    """With --per-trial: draw it into this file, .png, .pdf or .svg."""

    def run(self) -> int:
        """Print mean return, standard error, mean length and MMER, or the tables of ``--per-trial``."""
        return self._per_trial() if self.per_trial else self._overall()

    def _overall(self) -> int:
        with usage_errors():
            for name in ("held_out", "trials", "json", "plot"):
                if getattr(self, name) not in (None, False):
                    raise ValueError(f"{name.replace('_', '-')}: it is for evaluate --per-trial")
            if len(self.runs) != 1:
                raise ValueError(f"runs: got {len(self.runs)} runs, expected one (with --per-trial several)")
            checks.integer("episodes", self.episodes)
            checks.integer("seed", self.seed, minimum=0)
            if self.render is not None:
                if self.render.suffix != ".gif":
                    raise ValueError(f"render: got {self.render}, expected a file name ending in .gif")
                require_writable("render", self.render, makes_folders=True)
            policy, heading = self._policy(self.runs[0])
            result = policy.evaluate(self.episodes, seed=self.seed, deterministic=self.deterministic)
        print(heading)
        print(f"episodes     {self.episodes}")
        print(f"mean return  {result.mean:.4f} ± {result.standard_error:.4f} (standard error)")
        print(f"mean length  {result.lengths.mean():.1f}")
        if not math.isnan(policy.best_return):
            print(f"MMER         {policy.best_return:.4f} (largest mean return of an update while training)")
        if self.render is not None:
            with usage_errors():
                save_animation(policy, self.render, seed=self.seed, deterministic=self.deterministic)
        return 0

    def _policy(self, source: Path) -> "tuple[RestoredPolicy, str]":
        """Return the policy of a run or a file, and what it is in words."""
        from s5_adapters.purejax import restore_policy
        from s5_adapters.purejax.restore import from_file

        if source.suffix == ".safetensors":
            if self.checkpoint is not None:
                raise ValueError(f"checkpoint: got {self.checkpoint} for {source}, it is for a run's folder")
            policy = from_file(source, self.env_id, self.env_kwargs)
            config = policy.config.training
            return policy, f"{config.env_id}, {config.memory}, from {source}"
        for name, value in (("env-id", self.env_id), ("env-kwargs", self.env_kwargs or None)):
            if value is not None:
                raise ValueError(f"{name}: got {value} for {source}, it goes with a policy file")
        policy = restore_policy(source, self.checkpoint, report=tell)
        config = policy.config.training
        updates = f"after {policy.update} of {config.num_updates} updates"
        return policy, f"{config.env_id}, {config.memory}, {updates}"

    def _per_trial(self) -> int:
        from s5_adapters.adaptation.curves import Question, ask
        from s5_adapters.adaptation.figure import draw
        from s5_adapters.adaptation.table import print_tables, write_json
        from s5_adapters.plot import new_figure

        with usage_errors():
            for name in ("render", "env_id", "env_kwargs"):
                if getattr(self, name) not in (None, {}):
                    raise ValueError(f"{name.replace('_', '-')}: it is not for evaluate --per-trial")
            for name in ("json", "plot"):  # what cannot be written is found before anything is played
                if getattr(self, name) is not None:
                    require_writable(name, getattr(self, name), makes_folders=True)
            if self.plot is not None:
                new_figure(self.plot, (1, 1))
            question = Question(
                self.episodes, self.trials, self.held_out, self.checkpoint, self.seed, self.deterministic
            )
            environment, adaptations = ask(self.runs, question, report=tell)
            print_tables(adaptations)
            if self.json is not None:
                write_json(self.json, environment, question, adaptations)
                print(f"wrote {self.json}")
            if self.plot is not None:
                draw(adaptations, self.plot)
                print(f"wrote {self.plot}")
        return 0


@dataclass(frozen=True)
class Status(Command):
    """Show how runs stand: going on or not, updates done and saved, return, speed, time left."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """Folders of runs, or folders with such below them."""

    def run(self) -> int:
        """Print a table."""
        from s5_adapters.cli_status import print_standings
        from s5_adapters.purejax.standing import find_runs, standing

        with usage_errors():
            run_dirs = find_runs(self.runs)
        standings, unreadable = [], []
        for run_dir in run_dirs:
            try:
                standings.append(standing(run_dir))
            except ValueError as error:  # one run that cannot be read hides no other
                unreadable.append(str(error))
        print_standings(standings)
        for line in unreadable:
            fail(line, 1)
        return int(bool(unreadable))


@dataclass(frozen=True)
class Plot(Command):
    """Plot return against environment steps; runs that differ in the seed alone share a line with a band."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("returns.png")
    """File to write: .png, .pdf or .svg."""
    window: int = 5
    """Updates to average over."""

    def run(self) -> int:
        """Draw the figure and say what is in it."""
        from s5_adapters.plot import plot_runs

        with usage_errors():
            groups = plot_runs(self.runs, self.output, self.window)
        for label, runs in groups.items():
            print(f"{label}: {', '.join(str(run) for run in runs)}")
        print(f"wrote {self.output}")
        return 0


@dataclass(frozen=True)
class Export(Command):
    """Write a trained policy to one portable file.

    What was trained with Stable-Baselines3 or RLlib is read by their own loaders, which unpickle: export
    only what you trust.
    """

    source: tyro.conf.Positional[Path]
    """The source: the folder of a run, a Stable-Baselines3 model's .zip, an RLlib checkpoint or a policy
    file; which of them it is, is seen."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """File to write; by default policy.safetensors, policy.stablehlo or policy.onnx."""
    format: Literal["safetensors", "stablehlo", "onnx"] = "safetensors"
    """A policy that all three ecosystems load, or one step of it as a program: one that needs JAX alone, or
    one for ONNX runtimes (extra onnx)."""
    checkpoint: int | None = None
    """Of a run, the checkpoint after this many updates; by default the newest that is whole."""
    vecnormalize: Path | None = None
    """Of a Stable-Baselines3 model, the file that VecNormalize.save wrote: its observation statistics."""

    def run(self) -> int:
        """Write the file and print its source."""
        from s5_adapters.core.files.stablehlo import export_stablehlo
        from s5_adapters.core.files.weights import save_policy
        from s5_adapters.export import read_policy
        from s5_adapters.onnx import export_onnx

        output = self.output or Path(f"policy.{self.format}")
        with usage_errors():
            require_writable("output", output)
            found = read_policy(
                self.source, checkpoint=self.checkpoint, vecnormalize=self.vecnormalize, report=tell
            )
            write = {"safetensors": save_policy, "stablehlo": export_stablehlo, "onnx": export_onnx}
            write[self.format](output, found.policy)
        trusted = "; its loader unpickles, so its author was trusted" if found.unpickled else ""
        print(f"wrote {output} from {found.kind}{trusted}")
        return 0


@dataclass(frozen=True)
class Clone(Command):
    """Teach a policy the actions of recorded episodes: a start for training where it finds none by itself.

    The options are those of train: environment, network, optimiser, --num-envs and --num-steps (how episodes
    are laid out), --normalize-observations, --freeze, --weights to start from. Those of the algorithm alone
    are not used.
    """

    episodes: tyro.conf.Positional[Path]
    """The .npz with obs, actions, episode_starts and perhaps rewards, which teach the critic."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]
    config: str | None = None
    """Where the other options start from, as of train."""
    epochs: int = 30
    """Passes over the episodes."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("policy.safetensors")
    """File to write."""

    def run(self) -> int:
        """Teach, then say how well the held-out episodes are explained."""
        from s5_adapters.core.files.weights import save_policy
        from s5_adapters.purejax.cloning import Progress, clone

        def show(progress: Progress) -> None:
            agreement = "" if math.isnan(progress.agreement) else f", agreement {progress.agreement:.4f}"
            losses = f"loss {progress.loss:.4f}, held out {progress.held_out:.4f}"
            print(f"epoch {progress.epoch}: {losses}{agreement}")

        with usage_errors():
            checks.integer("epochs", self.epochs)
            require_writable("output", self.output)
            policy = clone(self.settings.resolve(), str(self.episodes), epochs=self.epochs, report=show)
            save_policy(self.output, policy)
        print(f"wrote {self.output}; go on with: s5-adapters train --weights {self.output}")
        return 0


@dataclass(frozen=True)
class Bench:
    """Measure one model and one environment in the jitted trainer, Stable-Baselines3 and RLlib."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Run, tyro.conf.subcommand("run")] | Annotated[Report, tyro.conf.subcommand("report")]
    ] = field(default_factory=Run)

    def run(self) -> int:
        """Run the sweep, or write the report."""
        with usage_errors():
            return self.action.run()


@dataclass(frozen=True)
class Envs:
    """List the environments; gymnax ids can be trained on too."""

    def run(self) -> int:
        """Print a table."""
        from s5_adapters.cli_envs import print_environments

        print_environments()
        return 0


def new_trainer(
    run: "RunConfig", run_dir: Path | None, reporter: "Reporter", *, goes_on: bool = False
) -> "Trainer":
    """Build a trainer with a folder of its own: the one given, or the first by its name that no other has.

    Args:
        run: what to train.
        run_dir: the folder.
        reporter: shows progress.
        goes_on: continue the run where it was begun already, on whatever number of devices and however it was
            watched and kept.
    """
    from s5_adapters.purejax import Trainer
    from s5_adapters.purejax.claim import FolderTakenError

    name = Path("runs") / f"{run.training.env_id}-{run.training.memory}-seed{run.seed}"
    passed = ""
    for number in itertools.count(1):
        folder = run_dir or (name if number == 1 else name.with_name(f"{name.name}-{number}"))
        try:
            trainer = Trainer(
                run.training,
                seed=run.seed,
                weights=run.weights,
                run_dir=folder,
                options=run.options,
                reporter=reporter,
                devices=run.devices,
            )
        except FolderTakenError as taken:
            if goes_on and (run_dir is not None or taken.owner is None):
                taken.refuse_another(run)
            different = "no run" if taken.owner is None else taken.owner.differences(run)
            if goes_on and not different:
                return Trainer.resume(folder, reporter=reporter, devices=run.devices, options=run.options)
            if run_dir is not None or not different:
                raise
            passed = passed or f"{folder}: {different}"
            continue
        if goes_on and passed:
            reporter.warn(f"{passed}; beginning another in {folder}")
        return trainer
    raise AssertionError("a folder is free")


def matched_to_s5(config: "Algorithm") -> "Algorithm":
    """Return the same configuration with its memory at the number of parameters of S5's."""
    from s5_adapters.core import make_memory
    from s5_adapters.core.memories.defaults import SIZES, complete
    from s5_adapters.core.memories.matching import count_params, match_params

    given, width = complete(config.memory, config.memory_config), config.encoder[-1]
    s5 = make_memory("s5", **complete("s5", {name: given[name] for name in SIZES}))
    matched = match_params(config.memory, given, target=count_params(s5, width), width=width)
    return replace(config, memory_config=matched)


def print_estimate(config: "Algorithm", devices: int) -> int:
    """Print what a run would take, and return the exit code."""
    from s5_adapters.purejax.estimate import estimate
    from s5_adapters.purejax.progress import format_duration

    found, updates, steps = estimate(config, devices), config.num_updates, config.num_steps
    on_each = "" if devices == 1 else f" on each of {devices} devices"
    how = "measured" if found.measured_steps == steps else f"from {found.measured_steps} of {steps} steps"
    print(f"{config.env_id}, {config.memory}: {updates:,} updates of {config.steps_per_update:,} steps")
    print(f"parameters   {found.parameters:,}, {_size(found.parameter_bytes)}")
    print(f"checkpoint   {_size(found.state_bytes)}")
    print(f"memory       {_size(found.memory_bytes)}{on_each} (predicted by the compiler)")
    print(f"compile time {found.compile_seconds:.1f} s")
    print(f"an update    {found.seconds_per_update:.3g} s ({how})")
    print(f"the run      {format_duration(found.seconds_per_update * updates)}")
    print("nothing was trained or written")
    return 0


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def new_seeds_trainer(
    run: "RunConfig",
    seeds: int,
    devices: int | None,
    run_dir: Path | None,
    reporter: "Reporter",
    goes_on: bool,
) -> "SeedsTrainer":
    """Build a trainer of several seeds, with a folder for each."""
    from s5_adapters.purejax.seeds import SeedsTrainer

    checks.integer("seeds", seeds)
    if run.weights is not None:
        raise ValueError("seeds: they begin with random weights, so expected no --weights")
    if processes.are_several():
        raise ValueError(
            "seeds: they are shared out over the devices of one process, so expected no --distributed"
        )
    names = [f"seed{run.seed + i}" for i in range(seeds)]
    kind = f"{run.training.env_id}-{run.training.memory}"
    folders = [run_dir / name if run_dir else Path("runs") / f"{kind}-{name}" for name in names]
    if devices is None:
        there = device_count()
        devices = max(n for n in range(1, there + 1) if seeds % n == 0)
        if devices < there:
            reporter.say(f"seeds: {seeds} on {devices} of {there} devices, since as many share them equally")
    return SeedsTrainer(
        run.training,
        folders,
        seed=run.seed,
        options=run.options,
        reporter=reporter,
        devices=devices,
        goes_on=goes_on,
    )


def device_count() -> int:
    """Count the devices of this process, or of all that train together."""
    import jax

    return len(jax.devices())


def train_seeds(
    trainer: "SeedsTrainer", limit: "TimeLimit | None", interrupts: "Interrupts | None" = None
) -> int:
    """Run several seeds to their end, print where they are and which failed, and return the exit code.

    A failure decides it at the end alone: before, the others have to go on.
    """
    code = train(trainer, limit, interrupts)
    for line in trainer.failures:
        fail(line, 1)
    is_over = trainer.update == trainer.config.num_updates
    return code or int(is_over and bool(trainer.failures))


def save_animation(policy: "RestoredPolicy", output: Path, *, seed: int, deterministic: bool) -> None:
    """Play one episode into a GIF and say how it went."""
    from s5_adapters.purejax.record import record_episode
    from s5_envs.rendering import save_gif

    frames, episode_return = record_episode(policy, seed=seed, deterministic=deterministic)
    save_gif(frames, output)
    print(f"wrote {output}: {len(frames)} steps, return {episode_return:.4f}")


def train(
    trainer: "Trainer", limit: "TimeLimit | None" = None, interrupts: "Interrupts | None" = None
) -> int:
    """Run a trainer to its end or its limit, print the outcome, and return the exit code."""
    from s5_adapters.purejax import InterruptedRunError, NonFiniteError
    from s5_adapters.purejax.claim import FolderTakenError
    from s5_adapters.purejax.faults import RunFolderError

    try:
        trainer.run(limit, interrupts)
    except FolderTakenError as error:
        return processes.leave(fail(str(error), 2))
    except RunFolderError as error:
        return processes.leave(fail(str(error), 1))
    except NonFiniteError as error:
        return fail(str(error), 1)
    except InterruptedRunError as error:
        return fail(str(error), 128 + error.signal_number)
    if not processes.is_first():
        return 0
    if trainer.skipped:
        print(f"{trainer.skipped:,} gradient steps were not taken, since the gradient was not finite")
    if limit is not None and trainer.update < trainer.config.num_updates:
        print(
            f"stopped before the limit of {limit.seconds:,.0f} s after update {trainer.update} of "
            f"{trainer.config.num_updates}; saved; go on with: {trainer.how_to_go_on}"
        )
        return 0
    print(f"trained {trainer.step:,} steps; best mean episodic return of an update {trainer.best_return:.4f}")
    print(f"everything is in {trainer.run_dir}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with usage_errors():
            import_modules(_values_of(arguments, "--import"))
            base = _base_of(arguments)
        with settings_registry(base):
            command: Any = tyro.cli(
                _commands(),
                prog="s5-adapters",
                description=_DESCRIPTION,
                args=arguments,
                use_underscores=False,
            )
        with processes.lost_together() if "--distributed" in arguments else contextlib.nullcontext():
            code = int(command.run())
        sys.stdout.flush()
    except UsageError as error:
        return processes.leave(fail(str(error), 2))
    except BrokenPipeError:  # the reader has what it wanted, as in `s5-adapters envs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return 1  # as rich's console ends then
    except KeyboardInterrupt:
        return fail("interrupted", 128 + signal.SIGINT)
    return code


def fail(message: str, code: int) -> int:
    """Print a message to standard error, once for all processes of a run, and return the exit code."""
    if processes.is_first():
        tell(message)
    return code


def tell(message: str) -> None:
    """Print a message to standard error."""
    print(f"s5-adapters: {message}", file=sys.stderr)


_DESCRIPTION = "S5 memory for reinforcement learning: train, evaluate, export and compare."


def _commands() -> Any:
    return (
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Status, tyro.conf.subcommand("status")]
        | Annotated[Plot, tyro.conf.subcommand("plot")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Clone, tyro.conf.subcommand("clone")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Annotated[Envs, tyro.conf.subcommand("envs")]
    )


def _base_of(arguments: Sequence[str]) -> "RunConfig":
    """Find what options start from, of ``train`` and ``clone``; some decide the others and their defaults."""
    has_settings = arguments[:1] in (["train"], ["clone"])
    resume, config, weights, algorithm = (
        (_values_of(arguments, option) or (None,))[-1] if has_settings else None
        for option in ("--resume", "--config", "--weights", "--algorithm")
    )
    if resume == AUTO:
        resume = None
    return load_base(resume or config, weights, None if resume else algorithm)


def _values_of(arguments: Sequence[str], option: str) -> tuple[str, ...]:
    """Return the values of an option, looked up before the options are parsed."""
    given = [
        argument.partition("=")[2] if argument != option else value
        for argument, value in itertools.pairwise((*arguments, None))
        if argument is not None and (argument == option or argument.startswith(f"{option}="))
    ]
    return tuple(value for value in given if value is not None)


if __name__ == "__main__":
    sys.exit(main())
