import json

import pytest

from s5_adapters.purejax import PPOConfig, RunConfig, RunOptions, read_config
from s5_adapters.purejax.run_folder import write_config


def test_the_published_setting():
    config = PPOConfig.paper()
    assert config.to_dict() == {
        "env_id": "RepeatPreviousEasy",
        "env_kwargs": {},
        "memory": "s5",
        "memory_config": {
            "d_model": 256,
            "n_layers": 4,
            "d_state": 256,
            "discretization": "zoh",
            "dt_min": 0.001,
            "dt_max": 0.1,
            "clip_eigenvalues": False,
        },
        "encoder": [128, 256],
        "actor_torso": [128, 128],
        "critic_torso": [128, 128],
        "activation": "leaky_relu",
        "critic_memory": "shared",
        "cnn_features": 512,
        "total_steps": 15_000_000,
        "num_envs": 64,
        "num_steps": 1024,
        "num_epochs": 30,
        "num_minibatches": 8,
        "optimizer": "adam",
        "learning_rate": 5e-5,
        "anneal_learning_rate": False,
        "adam_eps": 1e-5,
        "dynamics_lr_scale": 1.0,
        "freeze": [],
        "lr_scales": {},
        "max_grad_norm": 0.5,
        "on_nonfinite": "stop",
        "gamma": 0.99,
        "time_limit": "terminal",
        "trial_end": "continue",
        "resets": True,
        "gae_lambda": 1.0,
        "clip_range": 0.2,
        "clip_value_loss": True,
        "target_kl": None,
        "normalize_advantages": True,
        "entropy_coef": 0.0,
        "value_coef": 1.0,
        "normalize_observations": False,
        "normalize_rewards": False,
        "precision": "default",
    }
    assert config.num_updates == 228


@pytest.mark.parametrize(("memory", "n_layers"), [("gru", 1), ("lstm", 4)])
def test_the_published_setting_with_another_memory_keeps_what_both_have(memory, n_layers):
    """The published GRU has one layer beside S5's four."""
    config = PPOConfig.paper(memory=memory, env_id="RepeatPreviousHard")
    assert dict(config.memory_config) == {"d_model": 256, "n_layers": n_layers}
    assert config.env_id == "RepeatPreviousHard"


def test_equal_by_value_hashable_and_round_trips_through_json():
    config = PPOConfig(
        encoder=[32, 16], memory_config={"d_model": 8, "n_layers": 1}, env_kwargs={"sizes": [1, [2]]}
    )
    again = PPOConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again != PPOConfig()


def test_a_mapping_that_came_in_does_not_change_the_configuration_later():
    memory_config = {"d_model": 8}
    config = PPOConfig(memory_config=memory_config)
    memory_config["d_model"] = 16
    assert config.memory_config["d_model"] == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_envs": 30}, "num_minibatches=4 does not divide num_envs=30"),
        ({"total_steps": 3327}, r"total_steps=3327 is less than one rollout .* 32 \* 104 = 3328"),
        ({"num_steps": 0}, "num_steps: got 0, expected an integer >= 1"),
        ({"num_steps": 10.5}, "num_steps: got 10.5"),
        ({"num_envs": True}, "num_envs: got True"),
        ({"gamma": 1.01}, "gamma: got 1.01, expected a number >= 0 and <= 1"),
        ({"gamma": float("nan")}, "gamma: got nan"),
        ({"learning_rate": 0}, "learning_rate: got 0, expected a number > 0"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast'"),
        ({"max_grad_norm": -1}, "max_grad_norm: got -1"),
        ({"encoder": [64, -1]}, r"encoder\[1\]: got -1"),
        ({"encoder": 64}, "encoder: got 64"),
        ({"normalize_rewards": 1}, "normalize_rewards: got 1"),
        ({"critic_memory": "share"}, "critic_memory: got 'share', expected one of shared"),
        ({"memory_config": ["d_model"]}, "memory_config: got"),
        ({"env_id": ""}, "env_id: got ''"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=rf"^{message}[^\n]*$"):
        PPOConfig(**fields)


def test_whole_numbers_may_be_written_as_people_write_them():
    assert PPOConfig(total_steps=15e6).total_steps == 15_000_000
    assert PPOConfig(max_grad_norm=None).max_grad_norm is None


def test_an_unknown_field_is_refused_with_the_nearest_first():
    with pytest.raises(ValueError, match="unknown field 'lerning_rate', expected one of learning_rate,"):
        PPOConfig.from_dict({"lerning_rate": 1e-3})
    with pytest.raises(ValueError, match="unknown field 'seeds', expected one of seed,"):
        RunConfig.from_dict({"seeds": 1})


def test_a_run_writes_a_configuration_that_it_can_read(tmp_path):
    config = RunConfig(PPOConfig(memory="gru"), seed=7, options=RunOptions(evaluate_every=3))
    write_config(tmp_path / "run", config)
    assert read_config(tmp_path / "run") == config
    assert read_config(tmp_path / "run" / "config.json") == config


def test_toml_says_none_for_no_number(tmp_path):
    (tmp_path / "run.toml").write_text('target_kl = "none"\nmax_grad_norm = "none"\n')
    training = read_config(tmp_path / "run.toml").training
    assert (training.target_kl, training.max_grad_norm) == (None, None)


def test_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('memory = "gru"\nseed = 3\nencoder = [16]\n[memory_config]\nd_model = 32\n')
    config = read_config(path)
    assert config == RunConfig(PPOConfig(memory="gru", encoder=(16,), memory_config={"d_model": 32}), seed=3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.toml", "memory = "),
        ("run.json", "{"),
        ("run.json", "[1]"),
        ("run.json", '{"gamma": 2}'),
        ("run.yaml", "gamma: 0.9"),
        ("run.json", '{"seed": -1}'),
    ],
)
def test_a_file_that_holds_no_configuration_is_named(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{path}: [^\n]+$"):
        read_config(path)
