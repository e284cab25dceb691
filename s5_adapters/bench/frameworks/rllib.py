"""RLlib's new API stack, sampling in the process that learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.typing import TensorType

from s5_adapters.bench.checks import assert_same_parameters
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.core.files.weights import load_policy
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.rllib._learner import S5PPOTorchLearner, standardize

DIFFERENCES = (
    "rows end where episodes end, and minibatches are whole rows, not whole environments",
    "advantages are estimated with a step more, which RLlib appends to every piece of an episode",
)
_returns: list[float] = []


class SpecLearner(S5PPOTorchLearner):
    """RLlib's learner with two rules of the spec's that RLlib has no setting for.

    `learner_config_dict` holds `adam_eps`, and `standardize`, whether to standardise advantages within each
    minibatch (again, after RLlib's own standardisation over the rollout, which changes nothing then).
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make Adam, with the spec's epsilon."""
        super().configure_optimizers_for_module(module_id, config)
        for _, optimizer in self.get_optimizers_for_module(module_id):
            for group in optimizer.param_groups:
                group["eps"] = self.config.learner_config_dict["adam_eps"]

    def compute_loss_for_module(self, *, batch: dict[str, Any], **rest: Any) -> TensorType:
        """Return PPO's loss of a minibatch, a scalar, with the spec's standardisation of advantages."""
        if self.config.learner_config_dict["standardize"]:
            advantages = standardize(batch[Postprocessing.ADVANTAGES], batch[Columns.LOSS_MASK])
            batch = {**batch, Postprocessing.ADVANTAGES: advantages}
        return super().compute_loss_for_module(batch=batch, **rest)


def note_return(*, episode: Any, prev_episode_chunks: Sequence[Any] = (), **_: Any) -> None:
    """Note an episode's return; RLlib calls this at its end.

    `episode` holds the steps since the iteration began alone: the ends of iterations cut an episode, and what
    was cut off comes beside it.
    """
    _returns.append(sum(float(chunk.get_return()) for chunk in (*prev_episode_chunks, episode)))


def run(cell: Cell, weights: Path | None, record: Recorder) -> None:
    """Train with PPO, one iteration per update."""
    torch.set_num_threads(1)
    record.differences += DIFFERENCES
    on_gpu = cell.device == "gpu"
    ray.init(num_cpus=2, num_gpus=int(on_gpu), include_dashboard=False, address="local", log_to_driver=False)
    try:
        algo = _config(cell, weights, record).build_algo()
        module: Any = algo.get_module()  # ours or torch's, of which RLlib promises less
        learners: Any = algo.learner_group
        if weights:
            assert_same_parameters(load_policy(weights), module.get_params())
        record.facts["parameters"] = sum(parameter.numel() for parameter in module.parameters())
        algo.env_runner.sample = record.timed("collect", algo.env_runner.sample)
        learners.update = record.timed("update", learners.update)
        _returns.clear()
        record.start()
        for update in range(1, cell.config.num_updates + 1):
            algo.train()
            record.updated(update * cell.config.steps_per_update, _returns)
            _returns.clear()
        algo.stop()
    finally:
        ray.shutdown()


def _config(cell: Cell, weights: Path | None, record: Recorder) -> S5PPOConfig:
    config = cell.config
    if weights:
        network: dict[str, Any] = {
            "model_config": {
                "weights": load_policy(weights),
                "lr_scales": config.lr_scales,
                "dynamics_lr_scale": config.dynamics_lr_scale,
                "max_seq_len": cell.spec.row_length,
            }
        }
    else:
        record.differences.append("own-lstm: one torso is shared by actor and critic")
        own = DefaultModelConfig(
            use_lstm=True,
            lstm_cell_size=config.memory_config["d_model"],
            fcnet_hiddens=list(config.encoder),
            fcnet_activation=config.activation,
            head_fcnet_hiddens=list(config.actor_torso),
            head_fcnet_activation=config.activation,
            max_seq_len=cell.spec.row_length,
            vf_share_layers=True,
        )
        network = {"rl_module_spec": RLModuleSpec(module_class=DefaultPPOTorchRLModule, model_config=own)}
    return (
        S5PPOConfig()
        .environment(config.env_id, env_config=dict(config.env_kwargs))
        .env_runners(num_env_runners=0, num_envs_per_env_runner=config.num_envs)
        .learners(
            num_gpus_per_learner=int(cell.device == "gpu"),
            learner_class=SpecLearner,
            learner_config_dict={"adam_eps": config.adam_eps, "standardize": config.normalize_advantages},
        )
        .callbacks(on_episode_end=note_return)
        .rl_module(**network)
        .training(
            train_batch_size_per_learner=config.steps_per_update,
            minibatch_size=config.steps_per_update // config.num_minibatches,
            num_epochs=config.num_epochs,
            lr=config.learning_rate,
            gamma=config.gamma,
            lambda_=config.gae_lambda,
            use_kl_loss=False,
            clip_param=config.clip_range,
            entropy_coeff=config.entropy_coef,
            vf_loss_coeff=config.value_coef / 2,  # RLlib's value loss is not halved
            grad_clip=config.max_grad_norm,
            grad_clip_by="global_norm",
        )
        .debugging(seed=cell.seed)
    )
