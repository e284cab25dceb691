"""What PPO learns from: rows with steps that count, advantages standardised over these and over no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from s5_adapters.rllib import S5PPOConfig
from s5_adapters.rllib._learner import (
    DropRowsThatCountNothing,
    S5PPOTorchLearner,
    StandardizeAdvantages,
    standardize,
)
from s5_envs.gymnasium import GymnaxEnv

TINY = {"d_model": 8, "d_state": 8, "n_layers": 1, "encoder": [8], "actor_torso": [8], "critic_torso": [8]}
GAMMA, LAMBDA = 0.9, 0.8


class Passes(ConnectorV2):
    """A user's own piece."""

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return batch


def config_of(**training: Any) -> S5PPOConfig:
    return (
        S5PPOConfig()
        .environment("PositionOnlyCartPoleEasy")
        .rl_module(model_config={**TINY, "max_seq_len": 4})
        .training(gamma=GAMMA, lambda_=LAMBDA, minibatch_size=8, train_batch_size_per_learner=16, **training)
    )


def episode(length: int, seed: int, **end: bool) -> SingleAgentEpisode:
    rng = np.random.default_rng(seed)
    return SingleAgentEpisode(
        observations=list(rng.normal(size=(length + 1, 2)).astype(np.float32)),
        actions=list(rng.integers(0, 2, length)),
        rewards=list(rng.normal(size=length)),
        extra_model_outputs={
            Columns.ACTION_DIST_INPUTS: list(np.zeros((length, 2), np.float32)),
            Columns.ACTION_LOGP: list(np.zeros(length, np.float32)),
            Columns.STATE_OUT: [{"memory": state} for state in np.zeros((length, 8), np.float32)],
        },
        len_lookback_buffer=0,
        **end,
    ).to_numpy()


def by_hand(rewards: np.ndarray, values: np.ndarray, terminated: bool) -> np.ndarray:
    """Advantages of one piece from its values, those of its last observation included."""
    values = values.copy()
    if terminated:
        values[-1] = 0.0
    advantages, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + GAMMA * values[t + 1] - values[t] + GAMMA * LAMBDA * following
        advantages[t] = following
    return advantages


def test_only_the_steps_that_count_are_standardised_over() -> None:
    advantages = torch.tensor([[1.0, 2.0, 100.0], [5.0, -70.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = standardize(advantages, mask)
    counted = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(found[mask], (counted - counted.mean()) / counted.std(), rtol=1e-6)
    assert not found[~mask].any()
    assert not standardize(advantages, torch.zeros_like(mask)).any()


def test_equal_advantages_and_a_module_without_any() -> None:
    mask = torch.ones(3, dtype=torch.bool)
    assert not standardize(torch.full((3,), 7.0), mask).any()
    batch = {"critic": {Columns.LOSS_MASK: mask}}
    assert StandardizeAdvantages()(batch=batch) == {"critic": {Columns.LOSS_MASK: mask}}


@pytest.mark.parametrize("own", [False, True])
def test_the_learners_pipeline_by_hand(own: bool) -> None:
    config = config_of(**({"learner_connector": lambda *_: Passes()} if own else {}))
    learner = config.build_learner(env=None, spaces=spaces())
    names = [type(piece).__name__ for piece in learner._learner_connector.connectors]
    assert names[-3:] == ["GeneralAdvantageEstimation", "StandardizeAdvantages", "DropRowsThatCountNothing"]
    assert ("Passes" in names) == own
    learner._learner_connector.remove(DropRowsThatCountNothing)  # whose values are wanted here
    pieces = [episode(6, 0, terminated=True), episode(3, 1, truncated=True), episode(4, 2)]
    rewards = [np.asarray(piece.get_rewards()) for piece in pieces]
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=pieces, shared_data={})
    columns = batch[DEFAULT_MODULE_ID]
    mask = columns[Columns.LOSS_MASK]
    module = learner.module[DEFAULT_MODULE_ID]
    values = module.compute_values(columns).numpy()
    wanted, targets, row = [], [], 0
    for reward, terminated in zip(rewards, (True, False, False), strict=True):
        rows = -(-(len(reward) + 1) // 4)
        value = values[row : row + rows].ravel()[: len(reward) + 1]
        wanted.append(by_hand(reward, value, terminated))
        targets.append(wanted[-1] + value[:-1])
        row += rows
    every = np.concatenate(wanted)
    assert mask.sum() == len(every) == 13
    np.testing.assert_allclose(
        columns[Postprocessing.ADVANTAGES][mask], (every - every.mean()) / every.std(), atol=1e-5
    )
    np.testing.assert_allclose(
        columns[Postprocessing.VALUE_TARGETS][mask], np.concatenate(targets), rtol=1e-5, atol=1e-5
    )


MANY = [(6, "terminated"), (3, "truncated"), (4, ""), (1, "terminated"), (8, "truncated"), (7, "")]
"""Pieces of episodes, two of which fill their rows of 4 steps: RLlib's step more has a row of its own."""


def pieces_of(lengths_and_ends: list[tuple[int, str]]) -> list[SingleAgentEpisode]:
    return [
        episode(length, seed, **({end: True} if end else {}))
        for seed, (length, end) in enumerate(lengths_and_ends)
    ]


def batch_of(learner: Any) -> dict[str, Any]:
    """The batch that a learner makes of `MANY`."""
    pieces = pieces_of(MANY)
    return learner._learner_connector(rl_module=learner.module, batch={}, episodes=pieces, shared_data={})[
        DEFAULT_MODULE_ID
    ]


@pytest.mark.parametrize("memory", ["s5", "feedforward"])
def test_batches_are_made_as_rllib_makes_them(memory: str) -> None:
    model = {**TINY, "max_seq_len": 4} if memory == "s5" else {"memory": memory, "encoder": [8]}
    ours, rllibs = (
        config_of()
        .rl_module(model_config=model)
        .learners(learner_class=learner_class)
        .build_learner(env=None, spaces=spaces())
        for learner_class in (S5PPOTorchLearner, PPOTorchLearner)
    )
    rllibs.module.set_state(ours.module.get_state())
    ours._learner_connector.remove(StandardizeAdvantages)
    ours._learner_connector.remove(DropRowsThatCountNothing)
    made, expected = batch_of(ours), batch_of(rllibs)
    assert made.keys() == expected.keys()
    for name, column in expected.items():
        tree.map_structure(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), made[name], column)


def test_rows_that_count_nothing_leave_and_the_loss_stays() -> None:
    learner = config_of(num_epochs=1).build_learner(env=None, spaces=spaces())
    few = batch_of(learner)
    learner._learner_connector.remove(DropRowsThatCountNothing)
    every = batch_of(learner)
    left = every[Columns.LOSS_MASK].any(1)
    assert (len(left), int(left.sum())) == (11, 9)
    for name in few.keys() - {Columns.SEQ_LENS}:
        tree.map_structure(lambda a, b: torch.testing.assert_close(a, b[left]), few[name], every[name])
    assert few[Columns.SEQ_LENS].tolist() == [4, 2, 3, 4, 1, 4, 4, 4, 3]
    found = []
    for batch in (few, every):
        batches = {DEFAULT_MODULE_ID: batch}
        loss = learner.compute_losses(fwd_out=learner.module.forward_train(batches), batch=batches)
        found.append((loss, list(learner.compute_gradients(loss).values())))
    torch.testing.assert_close(*found)


def test_a_batch_in_which_nothing_counts_or_with_lists_in_it() -> None:
    nothing = {"critic": {Columns.LOSS_MASK: torch.zeros(2, 3, dtype=torch.bool), "x": torch.ones(2)}}
    assert len(DropRowsThatCountNothing()(batch=nothing)["critic"]["x"]) == 2
    steps = {Columns.LOSS_MASK: torch.tensor([True, False, True]), Columns.INFOS: ["a", "b", "c"]}
    batch = {"plain": steps, "no mask": {"x": torch.ones(2)}}
    found = DropRowsThatCountNothing()(batch=batch)
    assert found["plain"][Columns.INFOS] == ["a", "c"]
    assert len(found["plain"][Columns.LOSS_MASK]) == 2
    assert len(found["no mask"]["x"]) == 2


def test_a_pipeline_without_the_default_pieces_is_left_alone() -> None:
    config = config_of(add_default_connectors_to_learner_pipeline=False)
    learner = config.build_learner(env=None, spaces=spaces())
    names = [type(piece).__name__ for piece in learner._learner_connector.connectors]
    assert "StandardizeAdvantages" not in names


def test_the_learner_survives_the_dictionary_by_which_tune_hands_it_to_ppo() -> None:
    assert PPOConfig.from_dict(config_of().to_dict()).learner_class is S5PPOTorchLearner


def spaces() -> dict[str, Any]:
    env = GymnaxEnv("PositionOnlyCartPoleEasy")
    return {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}


def test_what_is_frozen_stays_and_a_part_may_learn_more_slowly() -> None:
    model = {**TINY, "max_seq_len": 4, "freeze": ["memory", "encoder"], "lr_scales": {"heads": 0.5}}
    learner = config_of(grad_clip=None).rl_module(model_config=model).build_learner(env=None, spaces=spaces())
    network = learner.module[DEFAULT_MODULE_ID].network
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    (optimizer,) = learner._named_optimizers.values()
    for group in optimizer.param_groups:  # as RLlib's schedule does
        group["lr"] = 1e-3
    gradients = {
        learner.get_param_ref(parameter): torch.ones_like(parameter)
        for parameter in network.parameters()
        if parameter.requires_grad
    }
    batches = {DEFAULT_MODULE_ID: batch_of(learner)}
    loss = learner.compute_losses(fwd_out=learner.module.forward_train(batches), batch=batches)
    assert learner.compute_gradients(loss).keys() == gradients.keys()
    learner.apply_gradients(gradients)
    for name, parameter in network.named_parameters():
        expected = {"trunk/memory": 0.0, "trunk/encoder": 0.0}.get("/".join(name.split("/")[:2]), 1e-3)
        expected *= 0.5 if name.startswith("heads/") else 1
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(moved, torch.full_like(moved, expected), rtol=0.01, atol=1e-9)


def test_the_memorys_dynamics_may_learn_more_slowly_still() -> None:
    slower = {"lr_scales": {"memory": 0.3}, "dynamics_lr_scale": 0.1}
    for words, expected in (
        (TINY, {"trunk/memory/B": 1.0, "trunk/memory/log_dt": 1.0, "heads/actor/kernel": 1.0}),
        (TINY | slower, {"trunk/memory/B": 0.3, "trunk/memory/log_dt": 0.03, "heads/actor/kernel": 1.0}),
        ({**TINY, "lr_scales": {"heads": 2.0}, "dynamics_lr_scale": 0.5}, {"trunk/memory/log_dt": 0.5}),
    ):
        config = config_of().rl_module(model_config={**words, "max_seq_len": 4})
        learner = config.build_learner(env=None, spaces=spaces())
        module = learner.module[DEFAULT_MODULE_ID]
        scales, parameters = module.parameter_scales(), dict(module.network.named_parameters())
        assert {name: round(scales[id(parameters[name])], 3) for name in expected} == expected
        (optimizer,) = learner._named_optimizers.values()
        assert len(optimizer.param_groups) == len({1.0, *scales.values()})


@pytest.mark.parametrize(
    ("memory", "scale", "message"),
    [
        ("s5", 0, r"^model_config\['dynamics_lr_scale'\]: got 0, expected a finite number > 0$"),
        ("gru", 0.1, r"^dynamics_lr_scale: got 0.1, expected 1 with memory 'gru'$"),
    ],
)
def test_a_scale_of_dynamics_that_cannot_be_is_refused(memory: str, scale: float, message: str) -> None:
    config = config_of().rl_module(
        model_config={"memory": memory, "dynamics_lr_scale": scale, "max_seq_len": 4}
    )
    with pytest.raises(ValueError, match=message):
        config.build_learner(env=None, spaces=spaces())


def test_something_has_to_learn() -> None:
    model = {**TINY, "max_seq_len": 4, "freeze": ["encoder", "memory", "torsos", "heads"]}
    with pytest.raises(
        ValueError, match=r"^model_config\['freeze'\]: got encoder, .*heads, nothing is left to learn$"
    ):
        config_of().rl_module(model_config=model).build_learner(env=None, spaces=spaces())
