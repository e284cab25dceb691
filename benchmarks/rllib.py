"""S5 against RLlib's own LSTM at equal width, on RLlib's new API stack: sampling, updating, compilations.

    python benchmarks/rllib.py                       # widths 64 and 256, 20 iterations each: minutes
    python benchmarks/rllib.py --widths 256 --iterations 8 --no-record

S5 learns as `S5PPOConfig` sets it, the LSTM with RLlib's own learner; `lstm_our_learner` is the LSTM with
`S5PPOTorchLearner`, which makes batches of any module in less time, so that network and learner can be told
apart. All live in one process and take turns, iteration by iteration, so that whatever else the machine does
slows them alike. The first iterations, in which S5 compiles, are timed apart. Exits 1 where a bound does not
hold: environment steps per second at least those of the LSTM, an update at width 64 in at most 0.9 and at
width 256 in at most 0.7 of its time, at most 6 compilations of the network in 20 iterations.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import jax
import ray
import torch
from _common import machine, table, write_json
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from s5_adapters.rllib import S5PPOConfig
from s5_adapters.torch_bridge import settle_jax

ENV = "RepeatPreviousEasy"
MAX_SEQ_LEN = 52
STEPS = 4096
WARM_UP = 2
MOST_COMPILATIONS = 6
MOST_UPDATE_TIME = {64: 0.9, 256: 0.7}
"""By width, of the LSTM's."""


class Compilations:
    """The programs that XLA has compiled since `start`, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, _: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.names.append(str(details.get("fun_name", "")))


def s5(width: int, layers: int) -> dict[str, Any]:
    """Return the network's configuration."""
    return {
        "d_model": width,
        "d_state": width,
        "n_layers": layers,
        "encoder": [width],
        "actor_torso": [width],
        "critic_torso": [width],
        "max_seq_len": MAX_SEQ_LEN,
    }


def lstm(width: int) -> RLModuleSpec:
    """Return RLlib's own of the same shape: dense, a shared LSTM, a dense layer in each head."""
    config = DefaultModelConfig(
        use_lstm=True,
        lstm_cell_size=width,
        fcnet_hiddens=[width],
        head_fcnet_hiddens=[width],
        max_seq_len=MAX_SEQ_LEN,
        vf_share_layers=True,
    )
    return RLModuleSpec(module_class=DefaultPPOTorchRLModule, model_config=config)


def build(model: dict[str, Any] | RLModuleSpec, envs: int, **learners: Any) -> Algorithm:
    """Build PPO with this network, sampling in this process; `learners`: arguments of `config.learners`."""
    config = (
        S5PPOConfig()
        .environment(ENV)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs)
        .training(train_batch_size_per_learner=STEPS, minibatch_size=1024, num_epochs=2)
        .debugging(seed=0)
        .learners(**learners)
    )
    is_spec = isinstance(model, RLModuleSpec)
    return config.rl_module(**{"rl_module_spec" if is_spec else "model_config": model}).build_algo()


def iterate(algo: Algorithm) -> tuple[float, float]:
    """Run one iteration of PPO: seconds of sampling `STEPS` steps, seconds of the learner's update."""
    began = time.perf_counter()
    episodes = algo.env_runner.sample(num_timesteps=STEPS)
    sampled = time.perf_counter()
    algo.learner_group.update(
        episodes=episodes,
        timesteps={"num_env_steps_sampled_lifetime": 0},
        num_epochs=algo.config.num_epochs,
        minibatch_size=algo.config.minibatch_size,
        shuffle_batch_per_epoch=True,
    )
    updated = time.perf_counter()
    algo.env_runner_group.sync_weights(from_worker_or_learner_group=algo.learner_group, inference_only=True)
    return sampled - began, updated - sampled


def compare(width: int, layers: int, envs: int, iterations: int) -> dict[str, Any]:
    """Measure medians of all, in turns, and S5's compilations."""
    algos = {
        "s5": build(s5(width, layers), envs),
        "lstm": build(lstm(width), envs, learner_class=PPOTorchLearner),
        "lstm_our_learner": build(lstm(width), envs),
    }
    # The environment's own programs are compiled before counting begins.
    algos["lstm"].env_runner.sample(num_timesteps=STEPS)
    counted = Compilations()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in algos}
    for _ in range(iterations):
        for name, algo in algos.items():
            times[name].append(iterate(algo))
    for algo in algos.values():
        algo.stop()
    row: dict[str, Any] = {"width": width, "s5_layers": layers, "num_envs": envs, "iterations": iterations}
    for name, pairs in times.items():
        row[f"{name}_first_iteration_s"] = round(sum(pairs[0]), 3)
        row[f"{name}_steps_per_s"] = round(STEPS / statistics.median(p[0] for p in pairs[WARM_UP:]))
        row[f"{name}_update_s"] = round(statistics.median(p[1] for p in pairs[WARM_UP:]), 4)
    row["sampling_speedup"] = round(row["s5_steps_per_s"] / row["lstm_steps_per_s"], 3)
    row["update_time_ratio"] = round(row["s5_update_s"] / row["lstm_update_s"], 3)
    row["compilations"] = len(counted.names)
    row["compiled"] = sorted(counted.names)
    return row


def missed(row: dict[str, Any]) -> list[str]:
    """Return the bounds that this row does not keep."""
    found = []
    if row["sampling_speedup"] < 1.0:
        found.append(f"width {row['width']}: samples {row['sampling_speedup']} times as fast, expected >= 1")
    most = MOST_UPDATE_TIME.get(row["width"])
    if most is not None and row["update_time_ratio"] > most:
        found.append(
            f"width {row['width']}: update takes {row['update_time_ratio']} of the time, expected <= {most}"
        )
    if row["compilations"] > MOST_COMPILATIONS:
        found.append(f"width {row['width']}: {row['compilations']} compilations, expected <= 6")
    return found


def main() -> int:
    """Measure, print, record, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--layers", type=int, default=1, help="S5 layers; the LSTM has one")
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--no-record", action="store_true", help="write no JSON")
    options = parser.parse_args()
    if options.iterations <= WARM_UP:
        parser.error(f"--iterations: got {options.iterations}, expected more than {WARM_UP}")

    torch.set_num_threads(1)
    settle_jax()  # as building a model does where nothing computed before it, as machine() does
    info = machine() | {"torch": torch.__version__, "ray": ray.__version__}
    ray.init(num_cpus=2, include_dashboard=False, address="local", log_to_driver=False)
    try:
        rows = [compare(w, options.layers, options.envs, options.iterations) for w in options.widths]
    finally:
        ray.shutdown()
    shown = [name for name in rows[0] if name != "compiled"]
    print(table(shown, [[row[name] for name in shown] for row in rows]))
    if not options.no_record:
        print(write_json("rllib", info, rows, env=ENV, steps_per_iteration=STEPS, epochs=2, minibatch=1024))
    problems = [problem for row in rows for problem in missed(row)]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
