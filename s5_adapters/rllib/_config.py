"""PPO's configuration with what a recurrent network needs already set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.from_config import NotProvided
from ray.tune.registry import register_env

from s5_adapters.rllib._envs import check_autoreset, env_creator, env_names
from s5_adapters.rllib._learner import S5PPOTorchLearner
from s5_adapters.rllib._model_config import ACTIONS_IN_ENV_UNITS
from s5_adapters.rllib._module import S5RLModule

__all__ = ["S5PPOConfig"]

MAX_SEQ_LEN = 64


class S5PPOConfig(PPOConfig):
    """A `PPOConfig` that differs in a handful of defaults, all of which can be set as usual.

    - `rl_module`: `S5RLModule`, with rows of 64 steps: `.rl_module(model_config={"d_model": 128})` suffices.
    - `environment`: an `s5_envs` id is registered when it is named, and stepped in one compiled call
      (`gym_env_vectorize_mode="vector_entry_point"`).
    - `normalize_actions=False, clip_actions=True`: a Box's Gaussian is in the environment's units and clipped
      to its bounds, as everywhere in this package, so that weights can move. The module warns otherwise.
    - `vf_clip_param=inf`: PPO's own 10 stops the critic from learning wherever returns are large.
    - `minibatch_size=1024`, `num_epochs=8`, `lr=3e-4`, `lambda_=0.95`, `grad_clip=0.5`, `clip_param=0.2`,
      `entropy_coeff=0.01`: fewer and larger minibatches than PPO's (128, 30), each of whole rows. The KL
      penalty stays on, as in PPO: without it learning falls (docs/rllib.md).
    - `learner_class=S5PPOTorchLearner`: advantages are standardised over the steps that count. RLlib counts
      the step in that it appends to every episode or piece of one, whose residual means nothing. Rows that
      hold that step alone leave the batch.
    - `max_requests_in_flight_per_env_runner=8`: with RLlib's 1, a runner that is still starting misses the
      weights of a checkpoint that is restored right after `build_algo()`, and nothing is said.

    `validate`, which RLlib calls before it builds anything, refuses a minibatch smaller than a row; and
    every runner refuses a vector environment that resets within the step.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        """See the class."""
        super().__init__(algo_class=algo_class)
        self.framework("torch")
        # Said outright, so that it survives `to_dict`, by which Tune hands it to a plain PPOConfig.
        self.rl_module(rl_module_spec=RLModuleSpec(), model_config={})
        self.learners(learner_class=S5PPOTorchLearner)
        self.environment(normalize_actions=False, clip_actions=True)
        self.env_runners(num_envs_per_env_runner=8, max_requests_in_flight_per_env_runner=8)
        self.training(
            lr=3e-4,
            gamma=0.99,
            lambda_=0.95,
            grad_clip=0.5,
            num_epochs=8,
            minibatch_size=1024,
            train_batch_size_per_learner=4096,
            vf_clip_param=float("inf"),
            clip_param=0.2,
            entropy_coeff=0.01,
        )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the spec of `S5RLModule`."""
        return RLModuleSpec(module_class=S5RLModule)

    def environment(self, env: Any = None, **kwargs: Any) -> Self:
        """Set the environment, as in every AlgorithmConfig; `s5_envs` ids need no registration."""
        if isinstance(env, str) and env in env_names():
            register_env(env, env_creator(env_names()[env]))
            self.env_runners(gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT)
        super().environment(**({} if env is None else {"env": env}), **kwargs)
        return self._tell_module()

    def rl_module(
        self,
        *,
        model_config: Any = NotProvided,
        rl_module_spec: Any = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the module, as in every AlgorithmConfig; `S5RLModule` with rows of 64 steps by default."""
        if isinstance(model_config, Mapping):
            model_config = {"max_seq_len": MAX_SEQ_LEN} | dict(model_config)
        if isinstance(rl_module_spec, RLModuleSpec) and rl_module_spec.module_class is None:
            rl_module_spec = replace(rl_module_spec, module_class=S5RLModule)
        super().rl_module(model_config=model_config, rl_module_spec=rl_module_spec, **kwargs)
        return self._tell_module()

    def validate(self) -> None:
        """Check the settings.

        Raises:
            ValueError: a minibatch cannot hold one row.
        """
        super().validate()
        max_seq_len = self._max_seq_len()
        if (
            self.enable_rl_module_and_learner
            and isinstance(max_seq_len, int)
            and self.minibatch_size is not None
            and self.minibatch_size < max_seq_len
        ):
            raise ValueError(
                f"minibatch_size: got {self.minibatch_size}, expected at least max_seq_len ({max_seq_len}): "
                "RLlib fills minibatches with whole rows of that many steps, and none would fit"
            )

    def build_env_to_module_connector(
        self, env: Any = None, spaces: Any = None, device: Any = None
    ) -> ConnectorV2:
        """Build RLlib's pipeline, for an environment that it can step correctly."""
        if isinstance(env, gym.vector.VectorEnv):
            check_autoreset(env)
        return super().build_env_to_module_connector(env=env, spaces=spaces, device=device)

    def _tell_module(self) -> Self:
        """Say in `model_config` what becomes of the module's actions."""
        as_they_are = bool(self.clip_actions and not self.normalize_actions)
        if isinstance(self._model_config, dict):
            self._model_config = self._model_config | {ACTIONS_IN_ENV_UNITS: as_they_are}
        return self

    def _max_seq_len(self) -> Any:
        spec = self._rl_module_spec
        own: dict[str, Any] = spec._get_model_config() if isinstance(spec, RLModuleSpec) else {}
        return (self.model_config | own).get("max_seq_len")
