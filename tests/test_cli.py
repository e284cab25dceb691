"""The command line, in this process: what it prints, what it leaves behind, how it ends."""

import errno
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from s5_adapters import load_policy
from s5_adapters.cli import main, matched_to_s5
from s5_adapters.cli_settings import Settings, load_base
from s5_adapters.core import make_memory
from s5_adapters.core.memories.matching import count_params
from s5_adapters.demo import CONFIGS as DEMO
from s5_adapters.plot import Band, draw, group_runs
from s5_adapters.presets import preset_names
from s5_adapters.purejax import A2CConfig, PPOConfig, build_problem
from s5_adapters.purejax.progress import Plain
from s5_adapters.purejax.run_folder import RunConfig, write_config

SMALL = [
    "--memory-config",
    "d_model=8",
    "d_state=8",
    "n_layers=1",
    "--encoder",
    "8",
    "--actor-torso",
    "8",
    "--critic-torso",
    "8",
    "--num-envs",
    "4",
    "--num-steps",
    "64",
    "--num-minibatches",
    "2",
    "--num-epochs",
    "1",
    "--total-steps",
    "1024",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run."""
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    options = ["--run-dir", str(run_dir), "--evaluate-every", "2", "--profile", "--quiet"]
    assert main(["train", *options, *SMALL]) == 0
    return run_dir


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "RepeatPreviousEsy"], "unknown environment 'RepeatPreviousEsy'; did you mean"),
        (["train", "--memory", "s6"], "memory: got 's6', expected one of"),
        (["train", "--memory-config", "d_modl=8"], "got argument 'd_modl'"),
        (["train", "--num-envs", "30"], "num_minibatches=4 does not divide num_envs=30"),
        (["train", "--total-steps", "1e3"], "total_steps=1000 is less than one rollout"),
        (["train", "--env", "CartPole-v1", "--env-kwargs", "pole=2"], "CartPole-v1 has no argument 'pole'"),
        (["train", "--seed", "-1"], "seed: got -1"),
        (["train", "--config", "nowhere.toml"], "nowhere.toml: no such file or folder"),
        (["train", "--resume", "nowhere"], "nowhere: no such file or folder"),
        (["train", "--resume", "."], "no config.json there"),
        (["train", "--freeze", "memroy"], "freeze[0]: got 'memroy', expected one of memory, "),
        (["train", "--lr-scales", "memory=0"], "lr_scales['memory']: got 0, expected a finite number > 0"),
        (["train", "--devices", "0"], "devices: got 0, expected an integer >= 1"),
        (["train", "--seeds", "2", "--devices", "0"], "devices: got 0, expected an integer >= 1"),
        (["train", "--seeds", "2", "--devices", "-1"], "devices: got -1, expected an integer >= 1"),
        (["train", "--seeds", "0"], "seeds: got 0"),
        (["train", "--seeds", "2", "--wandb"], "wandb: got True with several seeds, expected False"),
        (["train", "--keep-best"], "keep_best: got True, expected evaluate_every with it"),
        (["clone", "nowhere.npz"], "nowhere.npz: not a readable .npz of arrays: "),
        (["evaluate", "nowhere"], "nowhere: no such file or folder"),
        (["evaluate", "nowhere.safetensors"], "nowhere.safetensors: No such file or directory"),
        (["evaluate", "nowhere", "--episodes", "0"], "episodes: got 0"),
        (["evaluate", "nowhere", "--render", "a.mp4"], "expected a file name ending in .gif"),
        (["evaluate", "nowhere", "--render", "/dev/null/a.gif"], "render: no folder /dev/null"),
        (["evaluate", "nowhere", "--per-trial", "--json", "/"], "json: / is a folder, expected the name of"),
        (["evaluate", "nowhere", "--per-trial", "--plot", "/dev/null/a.png"], "plot: no folder /dev/null"),
        (["clone", "nowhere.npz", "-o", "/"], "output: / is a folder, expected the name of a file"),
        (["export", "nowhere", "-o", "nowhere/policy"], "output: no folder "),
        (["plot", "nowhere"], "nowhere: no such file or folder"),
        (["plot"], "expected the folders of one or more runs"),
        (["export", "nowhere"], "nowhere: no such file or folder"),
        (["train", "--weights", "nowhere"], "weights: nowhere: No such file or directory"),
        (["bench", "report", "nowhere"], "nowhere: no runs/*.json there"),
        (["bench", "run", "--envs", "CartPole"], "envs: got 'CartPole', expected one of"),
        (["bench", "run", "--seeds", "0"], "seeds: got 0"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path, capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--lerning-rate", "1"], ["--lerning-rate", "--learning-rate"]),
        (["train", "--total-steps", "many"], ["--total-steps", "many"]),
        (["train", "--critic-memory", "some"], ["--critic-memory", "separate"]),
        (["train", "--memory-config", "8"], ["NAME=VALUE"]),
        (["tarin"], ["train"]),
        ([], ["train", "evaluate", "plot", "export", "bench", "envs"]),
    ],
)
def test_an_option_that_cannot_be_read_is_explained(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert all(word in err for word in words)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_every_field_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in PPOConfig().to_dict():
        assert "--" + name.replace("_", "-") in out
    assert "d_model=64 n_layers=2" in out
    assert "(default: 0.001)" in out


def test_a_run_leaves_its_configuration_log_checkpoints_and_profile(run):
    left = {"config.json", "log.jsonl", "tensorboard", "checkpoints", "profile"}
    assert {path.name for path in run.iterdir()} == left
    config = json.loads((run / "config.json").read_text())
    sizes = {"d_model": 8, "d_state": 8, "n_layers": 1}
    assert config["memory_config"] == {**sizes, "dt_min": 0.01, "dt_max": 1.0, "clip_eigenvalues": True}
    assert config["evaluate_every"] == 2


def test_profile_leaves_a_trace_of_the_update(run):
    (path,) = run.rglob("perfetto_trace.json.gz")
    trace = json.loads(gzip.decompress(path.read_bytes()))
    assert any(event.get("dur", 0) > 0 for event in trace["traceEvents"])


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys):
    memory = ["--memory", "feedforward", "--memory-config", "d_model=8", "n_layers=1"]
    options = [*memory, *SMALL[4:], "--num-steps", "2048", "--total-steps", "16384"]
    assert main(["train", "--dry-run", *options]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "RepeatPreviousEasy, feedforward: 2 updates of 8,192 steps"
    out = {line[:12].strip(): line[12:].strip() for line in lines}
    # Encoder, one layer as wide, two torsos, heads of four suits and of the value.
    width = build_problem(PPOConfig()).obs_shape[0]
    count = (width + 1) * 8 + 3 * (8 + 1) * 8 + (8 + 1) * (4 + 1)
    assert out["parameters"] == f"{count:,}, {4 * count / 1024:.1f} KiB"
    assert out["checkpoint"].endswith("KiB")
    assert out["memory"].endswith("iB (predicted by the compiler)")
    assert out["an update"].endswith("s (from 1024 of 2048 steps)")
    assert re.fullmatch(r"(\d+:)?\d+:\d\d", out["the run"])
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_of_one_run_on_the_devices_there_are(capsys):
    for option, value in (("seeds", "2"), ("devices", "99")):
        assert main(["train", "--dry-run", f"--{option}", value]) == 2
        message = capsys.readouterr().err
        expected = {"seeds": "dry-run: expected it without --seeds", "devices": "devices: got 99, expected"}
        assert expected[option] in message
        assert message.count("\n") == 1


def test_presets_are_configurations_and_the_published_one_is_the_paper_s():
    published = load_base("meta-cartpole").training
    assert published == PPOConfig.paper(env_id="MetaCartPole-v0", env_kwargs={"previous_action": True})
    for name in preset_names():
        training = load_base(name).training
        assert training.num_updates > 50
        assert training.env_id.startswith("Meta")
    with pytest.raises(
        ValueError, match="meta-cartpol: no such file or folder, and no preset: those are meta-c"
    ):
        load_base("meta-cartpol")


def test_matched_memories_have_the_parameters_of_s5():
    matched = matched_to_s5(PPOConfig(memory="gru", memory_config={"d_model": 64, "n_layers": 2}))
    sizes = [
        count_params(make_memory(name, **config), 64)
        for name, config in (
            ("gru", matched.memory_config),
            ("s5", {"d_model": 64, "d_state": 64, "n_layers": 2}),
        )
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_evaluate_prints_the_return_and_its_error(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "7"]) == 0
    out = capsys.readouterr().out
    assert "RepeatPreviousEasy, s5, after 4 of 4 updates" in out
    assert "episodes     7\n" in out
    assert "mean length  51.0\n" in out
    assert "±" in out
    assert "MMER" in out
    assert main(["evaluate", str(run), "--checkpoint", "99"]) == 2


def test_evaluate_renders_an_episode(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--episodes", "1", "--render", "out.gif"]) == 0
    assert "51 steps" in capsys.readouterr().out
    with Image.open(tmp_path / "out.gif") as image:
        assert image.n_frames > 1


def test_an_animation_that_fails_takes_nothing_of_the_evaluation(run, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("s5_envs.rendering.save_gif", full)
    command = ["evaluate", str(run), "--episodes", "1", "--render", "out.gif"]
    assert main(command) == 2
    told = capsys.readouterr()
    assert "mean return" in told.out
    assert "No space left on device" in told.err
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(command) == 2
    told = capsys.readouterr()
    assert told.err == f"s5-adapters: render: {tmp_path} cannot be written in\n"
    assert told.out == ""


def test_plot_draws_a_figure(run, tmp_path, capsys):
    assert main(["plot", str(run), "-o", "figures/out.png"]) == 0
    with Image.open(tmp_path / "figures" / "out.png") as image:
        assert image.size[0] > 500
        assert len(np.unique(np.asarray(image).reshape(-1, image.size[0]))) > 5
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["out.png"]
    assert "RepeatPreviousEasy, s5" in capsys.readouterr().out
    assert main(["plot", str(run), "-o", "out.gif2"]) == 2


def test_a_line_is_named_by_what_runs_of_its_kind_differ_in(tmp_path):
    def labels(*configs):
        folders = []
        for i, (config, seed) in enumerate(configs):
            folders.append(tmp_path / f"{len(configs)}-{i}")
            write_config(folders[-1], RunConfig(config, seed=seed).completed())
        return list(group_runs(folders))

    s5, feedforward = DEMO["s5"], DEMO["feedforward"]
    expected = ["RepeatPreviousEasy, s5", "RepeatPreviousEasy, feedforward"]
    assert labels((s5, 0), (s5, 1), (feedforward, 0)) == expected
    small = replace(s5, memory_config={**s5.memory_config, "d_state": 16})
    assert labels((s5, 0), (small, 0), (feedforward, 0), (replace(s5, env_kwargs={"k": 8}), 0)) == [
        "RepeatPreviousEasy, s5, env_kwargs={}, memory_config.d_state=64",
        "RepeatPreviousEasy, s5, env_kwargs={}, memory_config.d_state=16",
        "RepeatPreviousEasy, feedforward, env_kwargs={}",
        "RepeatPreviousEasy, s5, env_kwargs={k=8}, memory_config.d_state=64",
    ]


def test_long_labels_leave_a_figure_s_axes_their_room(tmp_path):
    band = Band(np.arange(2.0), np.zeros(2), np.zeros(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where axes have no room
        draw({"RepeatPreviousEasy, s5" + 9 * ", memory_config.d_state=128": band}, tmp_path / "out.png")


def test_export_writes_a_policy_that_acts(run, tmp_path):
    assert main(["export", str(run), "-o", "policy.safetensors"]) == 0
    policy = load_policy(tmp_path / "policy.safetensors")
    obs = np.zeros((3, *policy.config.obs_shape), np.float32)
    action, _ = policy.act(obs, policy.initial_state(3), np.ones(3, bool))
    assert action.shape == (3,)
    assert policy.env_id == "RepeatPreviousEasy"
    assert policy.training["updates"] == 4
    assert main(["export", str(run), "-o", "nowhere/policy.safetensors"]) == 2
    assert main(["export", str(run), "--vecnormalize", "vec.pkl"]) == 2


def test_training_starts_from_a_policy_file_with_its_network(run, tmp_path, capsys):
    assert main(["export", str(run), "-o", "policy.safetensors"]) == 0
    start = ["train", "--weights", "policy.safetensors", "--quiet", *SMALL[SMALL.index("--num-envs") :]]
    assert main([*start, "--run-dir", "again"]) == 0
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["weights"], config["encoder"]) == ("policy.safetensors", [8])
    assert config["memory_config"] == {**config["memory_config"], "d_model": 8, "d_state": 8, "n_layers": 1}
    capsys.readouterr()
    for arguments, message in (
        (["--encoder", "9"], "weights: their network has encoder (8,), expected (9,)"),
        (["--normalize-observations"], "come with no observation statistics"),
        (["--env", "CartPole-v1"], "weights: their network has action Discrete(n=4), expected Discrete(n=2)"),
    ):
        assert main([*start, "--run-dir", "other", *arguments]) == 2
        assert message in (err := capsys.readouterr().err)
        assert err.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_a_finished_run_is_not_overwritten_and_resumes_to_nothing(run, capsys):
    before = (run / "log.jsonl").read_text()
    assert main(["train", "--run-dir", str(run), *SMALL]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--gamma", "0.5"]) == 2
    for devices in ("0", "-1"):
        assert main(["train", "--resume", str(run), "--devices", devices]) == 2
        assert f"devices: got {devices}, expected an integer >= 1\n" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    assert (run / "log.jsonl").read_text() == before


def test_options_override_the_file(run, tmp_path, capsys):
    """The run's own file starts another; a memory without state size drops that setting alone."""
    arguments = ["--memory", "feedforward", "--memory-config", "d_model=16", "--total-steps", "256"]
    assert main(["train", "--config", str(run), "--quiet", "--seed", "5", *arguments]) == 0
    config = json.loads(
        (tmp_path / "runs" / "RepeatPreviousEasy-feedforward-seed5" / "config.json").read_text()
    )
    assert config["memory_config"] == {"d_model": 16, "n_layers": 1}
    assert config["num_steps"] == 64
    assert config["total_steps"] == 256


S5_OF_32 = {
    "d_model": 32,
    "n_layers": 2,
    "d_state": 32,
    "dt_min": 0.01,
    "dt_max": 1.0,
    "clip_eigenvalues": True,
}


@pytest.mark.parametrize(
    ("memory", "given", "expected"),
    [
        ("s5", {"d_model": 32}, S5_OF_32),
        ("mamba", {}, {"d_model": 64, "n_layers": 2}),
        ("lru", {"n_layers": 1}, {"d_model": 64, "n_layers": 1, "d_state": 64}),
    ],
)
def test_what_options_leave_out_are_the_defaults_of_the_memory_that_they_name(memory, given, expected):
    nothing_said = RunConfig()
    for base in (nothing_said, nothing_said.completed())[: 1 if memory == "s5" else 2]:
        values = base.to_dict() | {"env_kwargs": {}, "memory": memory, "memory_config": given}
        assert Settings(base, values).resolve().completed().training.memory_config == expected


def test_another_algorithm_keeps_the_fields_that_both_have(tmp_path, capsys):
    assert load_base(None, algorithm="a2c").training == A2CConfig()
    (tmp_path / "mine.toml").write_text("num_steps = 64\nnum_epochs = 2\nseed = 4\n")
    base = load_base("mine.toml", algorithm="a2c")
    assert isinstance(base.training, A2CConfig)
    assert (base.training.num_steps, base.seed) == (64, 4)
    write_config(tmp_path / "one", base)
    write_config(tmp_path / "other", load_base("mine.toml"))
    labels = group_runs([tmp_path / "one", tmp_path / "other"])
    assert any("algorithm=a2c" in label for label in labels)
    assert any("algorithm=ppo" in label for label in labels)
    assert main(["train", "--resume", "other", "--algorithm", "a2c"]) == 2
    assert "--resume continues a run as it was configured" in capsys.readouterr().err


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(self, status):
        if status.update == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Plain, "show", interrupt)
    assert main(["train", "--run-dir", "run", "--chunk-updates", "1", *SMALL]) == 130
    err = capsys.readouterr().err
    assert "stopped by SIGINT after update 2 of 4" in err
    assert "s5-adapters train --resume run" in err
    monkeypatch.undo()
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_reader_that_has_enough_ends_the_command_quietly():
    command = [sys.executable, "-m", "s5_adapters.cli", "envs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(120) == 1


def test_envs_lists_what_there_is(capsys):
    assert main(["envs"]) == 0
    out = capsys.readouterr().out
    assert "RepeatPreviousEasy" in out
    assert "CartPole-v1" in out
