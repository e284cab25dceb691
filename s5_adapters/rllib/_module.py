"""The network as an RLModule of RLlib's new API stack."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiCategorical
from ray.rllib.core.rl_module.apis import (
    TARGET_NETWORK_ACTION_DIST_INPUTS,
    TargetNetworkAPI,
    ValueFunctionAPI,
)
from ray.rllib.core.rl_module.torch import TorchRLModule

from s5_adapters.core import ActorCriticConfig, Box, MultiDiscrete
from s5_adapters.core.files.weights import Policy
from s5_adapters.core.memories.memory import memory_class
from s5_adapters.core.network.masks import MASKED
from s5_adapters.core.network.parts import part_of, rate_scale, require_learning
from s5_adapters.core.network.spaces import ACTION_MASK
from s5_adapters.rllib._holder import NetworkHolder
from s5_adapters.rllib._model_config import ACTIONS_IN_ENV_UNITS, complete_model_config, read_model_config
from s5_adapters.rllib._network import as_module
from s5_adapters.rllib._process import settle_process
from s5_adapters.rllib._rows import MinibatchRows
from s5_adapters.torch_bridge import Buckets, JaxModule, Normalizer, pad_rows

__all__ = ["S5RLModule"]

Batch = dict[str, Any]

_STATE = "memory"
"""The one entry of STATE_IN and STATE_OUT: a row's whole state in one vector."""


class S5RLModule(NetworkHolder, TorchRLModule, ValueFunctionAPI, TargetNetworkAPI):
    """Encoder, S5 (or another memory), torsos and heads, for PPO, APPO and IMPALA.

    The whole network is the core's `ActorCritic`: `RLModuleSpec(module_class=S5RLModule,
    model_config={"d_model": 64, "n_layers": 2, "max_seq_len": 64})`. The keys are the fields of
    `ActorCriticConfig`, those of the memory it names (beside them or under `memory_config`), and
    `max_seq_len`, which every memory with a state needs: the steps in a row of a training batch.

    Action spaces: Discrete, MultiDiscrete, MultiBinary and one-dimensional Box, whose Gaussian is in the
    environment's own units (`normalize_actions=False`). Observations: vectors, or images with channels last;
    or a Dict of one of these and `action_mask`, 1 where an action is allowed, by which forbidden ones have
    probability 0 in sampling, training and entropy.

    Initial parameters follow torch's seed, and thereby `config.debugging(seed=...)`, or come from
    `model_config["weights"]`: a portable policy, or its file (an absolute path where Ray's workers are to
    read it). It also sets whatever else of the network `model_config` leaves out, and its observation
    statistics, frozen, are applied before the network. Checkpoints do not need that file.

    `model_config["freeze"]`, a list of "encoder", "memory", "torsos", "heads", names parts that do not learn,
    and `model_config["lr_scales"]` multiplies parts' learning rates, `model_config["dynamics_lr_scale"]` that
    of the memory's dynamics besides. `S5PPOConfig`'s learner keeps to them.

    Where a Box has bounds and nobody said that actions reach the environment in its own units
    (`model_config["actions_in_env_units"]`, which `S5PPOConfig` sets), a UserWarning says what to do.

    Attributes:
        network: the parameters, a `JaxModule`.
        old_network: their copy from some updates ago, where the algorithm is APPO.
        normalizer: the observation statistics of the weights it started from, None if there are none.
        lr_scales: what multiplies the learning rate of parts.
        dynamics_lr_scale: what multiplies that of the memory's dynamics besides.

    Raises:
        ValueError: an unknown key, a wrong value, a space that does not fit, no `max_seq_len`, or `weights`
            of another network or other spaces.
    """

    model_config: dict[str, Any]
    old_network: JaxModule

    def setup(self) -> None:
        """Build the network; RLlib calls this once."""
        settle_process()
        if not isinstance(self.model_config, Mapping):
            raise ValueError(f"model_config: got {self.model_config!r}, expected a mapping")
        read = read_model_config(self.model_config, self.observation_space, self.action_space)
        self._build(read)
        if read.max_seq_len is None and self._rows.state.size:
            raise ValueError(
                f"model_config: got no 'max_seq_len', which the {read.network.memory} memory needs, expected "
                "the number of steps in a row of a training batch, for example {'max_seq_len': 64}"
            )
        _warn_of_rescaling(read.network, self.model_config)
        self.lr_scales, self.dynamics_lr_scale = read.lr_scales, read.dynamics_lr_scale
        named = [(part_of(name), parameter) for name, parameter in self.network.named_parameters()]
        require_learning("model_config['freeze']", read.freeze, (part for part, _ in named))
        for part, parameter in named:
            parameter.requires_grad_(part not in read.freeze)
        self.normalizer: Normalizer | None = None
        self._weights = read.weights
        if read.weights is not None:
            # What a checkpoint stores to build the module again then needs no other file.
            self.model_config = {**self.model_config, "weights": read.weights}
            self.network.load_tree(read.weights.params)
            if (statistics := read.weights.obs_statistics) is not None:
                self.normalizer = Normalizer(
                    statistics.mean, statistics.variance, statistics.epsilon, statistics.clip
                )
        # One shape serves almost every call of these; each is padded apart from the others.
        self._train_rows = MinibatchRows()
        self._value_rows = Buckets(max_waste=4.0)

    def _take(self, config: ActorCriticConfig) -> None:
        """See the base class; checkpoints that are written from now on say the whole memory."""
        super()._take(config)
        self.model_config = complete_model_config(self.model_config, config)

    @property
    def actor_critic_config(self) -> ActorCriticConfig:
        """The network's architecture, as the core knows it."""
        return self._rows.config

    def get_params(self) -> Any:
        """Return the parameters as the core's pytree of numpy arrays, copied."""
        return self.network.snapshot()

    def to_policy(self) -> Policy:
        """Return the network as a portable policy, which acts without torch and Ray: see `save_policy`."""
        statistics = None if self._weights is None else self._weights.obs_statistics
        return Policy(self.actor_critic_config, self.get_params(), statistics)

    def parameter_scales(self) -> dict[int, float]:
        """Return what multiplies each parameter's learning rate, by its `id`: `lr_scales` and
        `dynamics_lr_scale`.
        """
        dynamics = memory_class(self._rows.config.memory).dynamics
        return {
            id(parameter): rate_scale(name, self.lr_scales, self.dynamics_lr_scale, dynamics)
            for name, parameter in self.network.named_parameters()
        }

    def set_params(self, params: Any) -> None:
        """Take the core's parameters, for example from the jitted trainer.

        Raises:
            ValueError: they belong to another architecture.
        """
        self.network.load_tree(params)

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """Return the state before an episode, unbatched: `{"memory": (S,) float32}`, or `{}` without one."""
        if not self._rows.state.size:
            return {}
        return {_STATE: np.zeros(self._rows.state.size, np.float32)}

    def train(self, mode: bool = True) -> S5RLModule:
        """Set torch's training mode, without touching the parameters.

        No layer behaves differently, and RLlib switches there and back at every acting step, at which
        `network` would throw away what it prepared for acting.
        """
        self.training = mode
        return self

    def get_inference_action_dist_cls(self) -> type:
        """Return RLlib's distribution of these actions."""
        action = self.actor_critic_config.action
        if self.action_dist_cls is None and isinstance(action, MultiDiscrete):
            return _multi_categorical(action.nvec)
        return super().get_inference_action_dist_cls()

    @torch.no_grad()
    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        """Act: one step of every row, or many."""
        obs, state, masks = self._inputs(batch)
        rows, steps = obs.shape[:2]
        if steps == 1:
            state, dist_inputs = self._acted(self._programs.act, state, obs[:, 0])
            dist_inputs = dist_inputs[:, None]
        else:
            (padded,) = self._value_rows.fit(rows)
            state, dist_inputs, _ = self._programs.sequence(
                self.network.tree(), pad_rows(state, padded), pad_rows(obs, padded)
            )
        dist_inputs = _masked(dist_inputs[:rows], masks)
        outputs: Batch = {Columns.ACTION_DIST_INPUTS: self._without_time(dist_inputs)}
        if self.is_stateful():
            outputs[Columns.STATE_OUT] = {_STATE: state[:rows]}
        return outputs

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute distributions and values of whole rows, differentiable; the values go as EMBEDDINGS."""
        dist_inputs, values = self._sequences(self.network, batch)
        return {Columns.ACTION_DIST_INPUTS: dist_inputs, Columns.EMBEDDINGS: values}

    def compute_values(self, batch: Batch, embeddings: torch.Tensor | None = None) -> torch.Tensor:
        """Return values `(B, T)`: those of `forward_train`, or from the batch alone without a gradient.

        It is advantage estimation that asks for the latter, outside `no_grad`.
        """
        if embeddings is not None:
            return embeddings
        obs, state, _ = self._inputs(batch)
        (padded,) = self._value_rows.fit(len(obs))
        with torch.no_grad():
            values = self._programs.values(
                self.network.tree(), pad_rows(state, padded), pad_rows(obs, padded)
            )
        return self._without_time(values[: len(obs)])

    def make_target_networks(self) -> None:
        """Make APPO's second set of parameters, equal to the first for now."""
        self.old_network = as_module(self.network.snapshot())
        self.old_network.requires_grad_(False)

    def get_target_network_pairs(  # type: ignore[override]  # Ray: lists invariant
        self,
    ) -> list[tuple[JaxModule, JaxModule]]:
        """Return the parameters and their copy."""
        return [(self.network, self.old_network)]

    @torch.no_grad()
    def forward_target(self, batch: Batch) -> Batch:
        """Return the distributions that the old parameters give."""
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self._sequences(self.old_network, batch)[0]}

    def _sequences(self, network: JaxModule, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        obs, state, masks = self._inputs(batch)
        padded = self._train_rows.fit(len(obs))
        dist_inputs, values = self._programs.train(
            network.tree(), pad_rows(state, padded), pad_rows(obs, padded)
        )
        dist_inputs = _masked(dist_inputs[: len(obs)], masks)
        return self._without_time(dist_inputs), self._without_time(values[: len(obs)])

    def _inputs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Read observations `(B, T, *obs_shape)`, the state `(B, S)` before them and masks `(B, T, K)`."""
        if Columns.OBS not in batch:
            raise ValueError(
                "the minibatch is empty: RLlib takes int(rows * minibatch_size / steps) rows of max_seq_len "
                f"({self.model_config.get('max_seq_len')}) steps for each, which is 0 when minibatch_size is "
                "smaller than max_seq_len: raise the one or lower the other"
            )
        obs, masks = _split_mask(batch[Columns.OBS])
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        if obs.dtype not in (torch.float32, torch.uint8):
            obs = obs.float()
        if not self.is_stateful():
            none = obs.new_zeros((len(obs), 0), dtype=torch.float32)
            return obs[:, None], none, None if masks is None else masks[:, None]
        if obs.dim() != len(self._rows.config.obs_shape) + 2:
            raise ValueError(
                f"obs: got shape {tuple(obs.shape)}, expected (rows, steps, "
                f"{', '.join(map(str, self._rows.config.obs_shape))})"
            )
        if Columns.STATE_IN not in batch:
            raise ValueError(
                "the batch has no 'state_in': expected the 'state_out' of the step before, or "
                "get_initial_state() with a batch axis in front at the start of an episode"
            )
        return obs, batch[Columns.STATE_IN][_STATE].float(), masks

    def _without_time(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs if self.is_stateful() else outputs[:, 0]


def _split_mask(obs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return an observation without its mask, and the mask as bool; None where there is none."""
    if not isinstance(obs, Mapping):
        return obs, None
    (rest,) = (part for name, part in obs.items() if name != ACTION_MASK)
    return rest, obs[ACTION_MASK].bool()


def _masked(dist_inputs: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """Take forbidden actions out of `dist_inputs (B, T, K)`, as the core's `mask_inputs` does."""
    return dist_inputs if masks is None else dist_inputs.masked_fill(~masks, MASKED)


def _warn_of_rescaling(config: ActorCriticConfig, model_config: Mapping[str, Any]) -> None:
    action = config.action
    bounded = isinstance(action, Box) and any(map(math.isfinite, (*action.low, *action.high)))
    if bounded and not model_config.get(ACTIONS_IN_ENV_UNITS):
        warnings.warn(
            f"S5RLModule: actions of {action} are in the environment's units, which RLlib rescales or leaves "
            "unclipped unless told otherwise: use S5PPOConfig, or .environment(normalize_actions=False, "
            f'clip_actions=True) and model_config["{ACTIONS_IN_ENV_UNITS}"]=True to say so',
            stacklevel=2,
        )


@functools.cache
def _multi_categorical(lengths: tuple[int, ...]) -> type:
    """Make RLlib's class once: RLlib asks at every acting step, and making it takes as long as the step."""
    return TorchMultiCategorical.get_partial_dist_cls(input_lens=list(lengths))  # type: ignore[misc, return-value]  # Ray says instance
