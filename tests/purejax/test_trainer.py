"""The host trainer against the pure function: same bits, one compilation, resumed, interrupted, stopped."""

import json
import logging
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from s5_adapters.purejax import InterruptedRunError, NonFiniteError, RunOptions, Trainer, make_train
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.progress import Silent, Status
from tests.marks import slow
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import assert_same_bits, small_config

SEED = 3


@pytest.fixture(scope="module")
def whole():
    """The run as one program."""
    return jax.jit(make_train(small_config()))(jax.random.key(SEED))


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, None])
def test_chunks_give_the_bits_of_the_whole(whole, tmp_path, chunk):
    options = RunOptions(chunk_updates=chunk, evaluate_every=4, evaluation_episodes=3, checkpoint_every=5)
    trainer = Trainer(small_config(), seed=SEED, run_dir=tmp_path / "run", options=options)
    result = trainer.run()
    assert_same_bits(result.state, whole.state)
    assert_same_bits(result.metrics, jax.tree.map(np.asarray, whole.metrics))
    rows = list(read_log(tmp_path / "run"))
    assert [row["update"] for row in rows if "policy_loss" in row] == list(range(1, 11))
    assert [row["update"] for row in rows if "evaluation_return" in row] == [4, 8]


def test_a_chunk_leaves_its_own_updates_behind_and_not_the_buffer():
    trainer = Trainer(small_config(), options=RunOptions(chunk_updates=1))
    for name, values in trainer._advance(None).items():
        assert values.shape == (1,), name
        assert values.base is None, name


@pytest.mark.parametrize("memory", ["s5", *slow("gru")])
def test_every_memory_and_option_gives_the_bits_of_the_whole(memory):
    config = small_config(
        memory=memory,
        memory_config={"d_model": 8, "n_layers": 2},
        env_id="CartPole-v1",
        normalize_observations=True,
        normalize_rewards=True,
        entropy_coef=0.01,
        critic_memory="separate",
        total_steps=160,
    )
    result = Trainer(config, seed=SEED, options=RunOptions(chunk_updates=2)).run()
    assert_same_bits(result.state, jax.jit(make_train(config))(jax.random.key(SEED)).state)


def test_the_update_is_compiled_once(tmp_path, caplog):
    options = RunOptions(chunk_updates=4, evaluate_every=3, evaluation_episodes=2)
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        Trainer(small_config(), run_dir=tmp_path / "run", options=options).run()
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert sum("run_chunk" in message for message in compiled) == 1
    assert sum("_play" in message for message in compiled) == 1


class InterruptAt(Silent):
    """Sends a signal to this process when an update is done."""

    def __init__(self, update: int, number: signal.Signals):
        self.update, self.number = update, number

    def show(self, status: Status) -> None:
        if status.update == self.update:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_resumes_with_the_same_bits(whole, tmp_path, number):
    run_dir = tmp_path / "run"
    options = RunOptions(chunk_updates=3, checkpoint_every=100, evaluate_every=3, evaluation_episodes=2)
    reporter = InterruptAt(6, number)
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=options, reporter=reporter)
    handler = signal.getsignal(number)
    with pytest.raises(
        InterruptedRunError, match=rf"{number.name} after update 6 .*--resume {run_dir}"
    ) as stopped:
        trainer.run()
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) == handler

    resumed = Trainer.resume(run_dir)
    assert resumed.update == 6
    assert_same_bits(resumed.run().state, whole.state)
    updates = [row["update"] for row in read_log(run_dir) if "policy_loss" in row]
    assert updates == list(range(1, 11))
    assert resumed.best_return == max(
        row["episode_return"] for row in read_log(run_dir) if row.get("episode_return")
    )


def test_resuming_drops_what_was_logged_after_the_checkpoint(whole, tmp_path):
    run_dir = tmp_path / "run"
    options = RunOptions(chunk_updates=1, checkpoint_every=4)
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=options, reporter=FailAt(7))
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.run()
    with (run_dir / "log.jsonl").open("a") as log:
        log.write('{"update": 8, "st')
    resumed = Trainer.resume(run_dir)
    assert resumed.update == 4
    assert_same_bits(resumed.run().state, whole.state)
    assert [row["update"] for row in read_log(run_dir)] == list(range(1, 11))


class FailAt(Silent):
    def __init__(self, update: int):
        self.update = update

    def show(self, status: Status) -> None:
        if status.update == self.update:
            raise RuntimeError("the power went")


def test_a_run_stopped_before_its_first_checkpoint_resumes_from_the_start(whole, tmp_path):
    options = RunOptions(chunk_updates=1, checkpoint_every=100)
    with pytest.raises(RuntimeError, match="the power went"):
        Trainer(
            small_config(), seed=SEED, run_dir=tmp_path / "run", options=options, reporter=FailAt(2)
        ).run()
    assert_same_bits(Trainer.resume(tmp_path / "run").run().state, whole.state)


def test_resuming_a_finished_run_does_nothing_more(whole, tmp_path):
    Trainer(small_config(), seed=SEED, run_dir=tmp_path / "run").run()
    result = Trainer.resume(tmp_path / "run").run()
    assert_same_bits(result.state, whole.state)
    assert all(len(values) == 0 for values in result.metrics.values())


def test_a_reward_that_is_no_number_stops_the_run(tmp_path):
    run_dir = tmp_path / "run"
    config = small_config(env_id="HiddenBit", env_kwargs={"length": 100, "nan_at": 30}, num_steps=8)
    trainer = Trainer(config, run_dir=run_dir, options=RunOptions(chunk_updates=2, checkpoint_every=2))
    with pytest.raises(NonFiniteError) as stopped:
        trainer.run()
    message = str(stopped.value)
    assert "a reward of the rollout is not finite at update 4 of 10 (step 128)" in message
    assert f"last good checkpoint: {run_dir / 'checkpoints' / '2'}" in message
    assert "\n" not in message
    resumed = Trainer.resume(run_dir)
    assert resumed.update == 2


def test_an_observation_that_overflows_is_named_first():
    config = small_config(env_id="HiddenBit", env_kwargs={"scale": 1e20})
    with pytest.raises(NonFiniteError, match=r"an observation .* at update 1 of 10 .*no checkpoint was kept"):
        Trainer(config).run()


def test_a_learning_rate_that_explodes_is_noticed():
    with pytest.raises(NonFiniteError, match="not finite at update 1 of 10"):
        Trainer(small_config(learning_rate=1e30, max_grad_norm=None)).run()


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="not empty"):
        Trainer(small_config(), run_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "broken", [{"env_id": "Nowhere"}, {"memory": "s7"}, {"memory_config": {"d_model": -1}}]
)
def test_nothing_is_written_for_a_configuration_that_cannot_be_built(tmp_path, broken):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        Trainer(small_config(**broken), run_dir=tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_shape_is_refused(tmp_path):
    run_dir = tmp_path / "run"
    Trainer(small_config(total_steps=32), run_dir=run_dir).run()
    config = json.loads((run_dir / "config.json").read_text())
    config["memory_config"]["d_model"] = 16
    (run_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"checkpoints/1: a checkpoint of another configuration: \S+ is float32\["
    ):
        Trainer.resume(run_dir)


def test_resuming_where_there_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        Trainer.resume(Path(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"no config\.json there"):
        Trainer.resume(tmp_path)
