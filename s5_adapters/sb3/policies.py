"""S5 policies for sb3-contrib's `RecurrentPPO`, with the arguments of its LSTM policies understood."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from s5_adapters.core import ActorCriticConfig, Discrete, checks
from s5_adapters.core.files.weights import Policy, as_policy
from s5_adapters.core.memories.defaults import complete_rates
from s5_adapters.core.network import parts
from s5_adapters.core.network.trunk import Trunk
from s5_adapters.sb3.acting import Acting, acting_program, draw_noise
from s5_adapters.sb3.arguments import ACTIVATION_NAMES, NetworkArguments, critic_topology
from s5_adapters.sb3.finite import check_finite
from s5_adapters.sb3.parts import MAX_STOCK_STATE, MemoryPart
from s5_adapters.sb3.portable import check_weights, load_weights, statistics_module, to_portable
from s5_adapters.sb3.predicting import flags, numbers, state_pair
from s5_adapters.sb3.rates import freeze_parts, has_scaled_parts, optimizer_with_scaled_parts
from s5_adapters.sb3.rollout_check import RandomState, difference
from s5_adapters.sb3.squashed import from_env_units, to_env_units
from s5_adapters.sb3.torsos import Torsos
from s5_adapters.sb3.trunk import FlatTrunk, Programs
from s5_adapters.sb3.unchanged import head_parameters
from s5_adapters.torch_bridge import (
    Buckets,
    JaxModule,
    Normalizer,
    in_transform,
    on_device,
    pad_rows,
    settle_jax,
)
from s5_adapters.torch_bridge.packed import PackedJit
from s5_adapters.torch_bridge.watched import unwatch

__all__ = ["MAX_STOCK_STATE", "CnnS5Policy", "ImageInput", "MultiInputS5Policy", "S5Policy"]

States = tuple[th.Tensor, ...]
"""A pair, annotated as in sb3-contrib's `RNNStates`."""

Acted = tuple[th.Tensor, th.Tensor, th.Tensor, th.Tensor, States, States]
"""Actions, values, log-probabilities, latents, and the actor's and the critic's next states."""


class ImageInput(BaseFeaturesExtractor):
    """Images passed on, flattened: the core's Nature CNN does the work. It takes `NatureCNN`'s arguments.

    Args:
        observation_space: an image space, channels first (SB3 transposes).
        features_dim: width of the CNN's last layer.
        normalized_image: the space holds floats in [0, 1] rather than bytes.

    Raises:
        AssertionError: for a space that is no image.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 512, normalized_image: bool = False
    ) -> None:
        """See the class."""
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise AssertionError(  # as SB3's NatureCNN
                f"CnnS5Policy: {observation_space} is no image (three axes of uint8): use S5Policy, or "
                "normalize_images=False for images of floats"
            )
        super().__init__(observation_space, int(th.tensor(observation_space.shape).prod()))
        self.cnn_features = features_dim

    @property
    def channels_last(self) -> tuple[int, ...]:
        """An image's shape as the core has it, `(height, width, channels)`."""
        channels, *size = self._observation_space.shape or ()
        return (*size, channels)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Flatten `(batch, channels, height, width)` to `(batch, channels * height * width)`."""
        return observations.flatten(1)


class S5Policy(RecurrentActorCriticPolicy):
    """A recurrent actor-critic whose encoder, memory and torsos run in JAX, in one call a step.

    SB3's features extractor stands before it and SB3's `action_net` and `value_net` after it, so every action
    space, gSDE and every extractor work as with `MlpLstmPolicy`, whose arguments all work here but
    `lstm_kwargs`. The parameters are torch's (`trunk`, one per leaf).

    Args beyond those of `MlpLstmPolicy`:
        memory: a name of the core's registry: "s5" (the default), "gru", "feedforward", ...
        d_model: features between layers (`lstm_hidden_size` also sets S5's `d_state`).
        n_layers: memory layers (`n_lstm_layers`).
        critic_memory: what the critic reads: "shared" (the actor's memory, trained by both),
            "shared_detached" (`shared_lstm=True, enable_critic_lstm=False`), "separate"
            (`enable_critic_lstm=True`) or "none" (`enable_critic_lstm=False`).
        encoder: widths of dense layers between the features and the memory; none by default.
        weights: start from a portable policy: a file's name, or what `load_policy` returned. It also sets
            every argument of the network that you leave out, and its observation statistics, frozen, are
            applied before the network. A model that the stock `RecurrentPPO` saves needs that file again to
            load; not so where you gave the policy itself, nor one that `S5RecurrentPPO` saves.
        check_rollout: compare the first step of a rollout, which one program computes, with SB3's modules; on
            a difference warn, and let SB3's modules compute every step.
        dynamics_lr_scale: multiplies the learning rate of what makes the memory's state fade and turn (S5's
            lambda and time steps) besides. None: 0.1 for S5, whose authors train them more slowly, else 1.
        freeze: parts that do not learn: "encoder" (a features extractor's parameters too), "memory",
            "torsos", "heads".
        lr_scales: multiplies the learning rate of parts, `{"memory": 0.1}`; parts left out learn at the full
            rate. None: S5 learns at 0.3 of it, other memories at all.
        **memory_config: the memory's own arguments: `d_state`, `dt_min`, `dt_max`, `discretization`, ...

    Raises:
        ValueError: an argument the memory does not know, an observation space that needs another policy, or
            `weights` of another network or other spaces.
        TypeError: `lstm_kwargs`.
        AssertionError: `shared_lstm=True` with `enable_critic_lstm` unset or True, as in SB3.
    """

    default_features_extractor: type[BaseFeaturesExtractor] = FlattenExtractor
    action_net: nn.Linear

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        lstm_hidden_size: int | None = None,
        n_lstm_layers: int | None = None,
        shared_lstm: bool | None = None,
        enable_critic_lstm: bool | None = None,
        lstm_kwargs: dict[str, Any] | None = None,
        *,
        memory: str | None = None,
        d_model: int | None = None,
        n_layers: int | None = None,
        critic_memory: str | None = None,
        encoder: tuple[int, ...] | None = None,
        weights: Policy | str | os.PathLike[str] | None = None,
        check_rollout: bool = True,
        dynamics_lr_scale: float | None = None,
        freeze: tuple[str, ...] = (),
        lr_scales: Mapping[str, float] | None = None,
        **memory_config: Any,
    ) -> None:
        """See the class."""
        settle_jax()
        self.weights = None if weights is None else as_policy(weights)
        said = NetworkArguments(
            memory=memory,
            d_model=d_model,
            n_layers=n_layers,
            lstm_hidden_size=lstm_hidden_size,
            n_lstm_layers=n_lstm_layers,
            lstm_kwargs=lstm_kwargs,
            memory_config=memory_config,
            encoder=encoder,
            net_arch=net_arch,
            activation_fn=activation_fn,
            features_extractor_kwargs=features_extractor_kwargs,
            critic_memory=critic_memory,
            shared_lstm=shared_lstm,
            enable_critic_lstm=enable_critic_lstm,
        )
        if self.weights is not None:
            said = said.filled_from(self.weights.config)
        extractor = self._extractor_class(features_extractor_class)
        self._check_observation_space(observation_space, extractor)
        self._memory = said.make_memory()
        self._critic_memory = critic_topology(
            said.critic_memory,
            said.shared_lstm,
            said.enable_critic_lstm,
            share_features_extractor=share_features_extractor,
        )
        self._encoder = tuple(said.encoder or ())
        if optimizer_kwargs is None and optimizer_class is th.optim.Adam:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}  # SB3's epsilon; one kernel for all parameters
        net_arch, features_extractor_kwargs = said.net_arch, said.features_extractor_kwargs
        self.normalizer: Normalizer | None = None
        if extractor is ImageInput and not normalize_images:
            features_extractor_kwargs = {"normalized_image": True, **(features_extractor_kwargs or {})}
        if net_arch is None and issubclass(extractor, ImageInput | NatureCNN):
            net_arch = []  # as SB3 does after a CNN
        self._buckets = Buckets(max_waste=4.0)
        self._acting_buckets = Buckets(max_waste=4.0, exact_first=True)
        self._acting: Acting | None = None
        self.lstm_output_dim = self._memory.d_model
        self.check_rollout = check_rollout
        self.freeze = parts.parts("freeze", freeze)
        if dynamics_lr_scale is not None:
            dynamics_lr_scale = checks.positive("dynamics_lr_scale", dynamics_lr_scale)
        lr_scales, self.dynamics_lr_scale = complete_rates(self._memory.name, lr_scales, dynamics_lr_scale)
        self.lr_scales = parts.part_scales("lr_scales", lr_scales)
        self._is_checked = not check_rollout
        self._leaves_heads_to_sb3 = False
        self._trainings = 0
        # The recurrent parent's constructor would build LSTMs and an optimiser for them.
        ActorCriticPolicy.__init__(
            self,
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            said.activation_fn,
            ortho_init,
            use_sde,
            log_std_init,
            full_std,
            use_expln,
            squash_output,
            extractor,
            features_extractor_kwargs,
            share_features_extractor,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
        )
        layers, width = self._trunk.layout.shape
        self.lstm_hidden_state_shape = (layers, 1, width)
        self.shared_lstm = self._critic_memory.startswith("shared")
        self.enable_critic_lstm = self._critic_memory == "separate"
        if self.weights is not None:
            load_weights(self, self.weights)
            if self.weights.obs_statistics is not None:
                shape = self.observation_space.shape
                assert shape is not None  # a Box: no other space has statistics
                self.normalizer = statistics_module(self.weights.obs_statistics, shape)
        self.trunk.prepared(self._programs.prepare, *head_parameters(self))  # compiled now, not in a rollout

    def to_policy(self) -> Policy:
        """Return the network as a portable policy, which acts without SB3 and torch: see `save_policy`.

        Raises:
            ValueError: a part of it that is not portable; one line that names it.
        """
        return to_portable(self)

    @property
    def trunk_config(self) -> ActorCriticConfig:
        """The architecture of what JAX computes; its action is not used."""
        return self._trunk.core.config

    @property
    def has_two_encoders(self) -> bool:
        """Whether actor and critic have an encoder each, with parameters."""
        return self._trunk.core.has_two_encoders

    @property
    def lstm_actor(self) -> MemoryPart:  # type: ignore[override]  # SB3 builds LSTMs
        """The actor's memory as a module of the policy's own parameters (see `MemoryPart`)."""
        return MemoryPart(self.trunk, "memory", self._trunk.layout)

    @property
    def lstm_critic(self) -> MemoryPart | None:  # type: ignore[override]  # SB3 builds LSTMs
        """The critic's memory likewise; None where it has none of its own (all but "separate")."""
        if not self._trunk.core.has_two_memories:
            return None
        return MemoryPart(self.trunk, "critic_memory", self._trunk.layout)

    def forward(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: th.Tensor, deterministic: bool = False
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RNNStates]:
        """Act and evaluate.

        Args:
            obs: `(batch, *obs_shape)`, as tensors.
            lstm_states: the actor's and the critic's state, each a pair of `(n_layers, batch, width)`.
            episode_starts: `(batch,)`, 1.0 where the observation is an episode's first.
            deterministic: take the most likely action.

        Returns:
            actions `(batch, *action_shape)`, in the environment's units even if squashed, values
            `(batch, 1)`, log-probabilities `(batch,)`, next states.
        """
        features = self._features(obs)
        starts = self._check(features, episode_starts, lstm_states.pi, lstm_states.vf)
        given = features, lstm_states.pi, lstm_states.vf, starts
        acted = self._act_unless_changed(*given, deterministic=deterministic)
        if acted is None:
            *latents, pi, vf = self._run(*given)
            return *self._by_sb3(*latents, deterministic=deterministic), RNNStates(pi, vf)
        actions, values, log_prob, _, pi, vf = acted
        if not isinstance(self.action_space, spaces.Box):
            actions = actions.long()
        return actions, values, log_prob, RNNStates(pi, vf)

    def get_distribution(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, lstm_states: States, episode_starts: th.Tensor
    ) -> tuple[Distribution, States]:
        """Return the action distribution and the actor's next state; the critic is not computed."""
        features = self._features(obs)[0]
        starts = self._check((features,), episode_starts, lstm_states)
        if not self._is_step((features,), lstm_states):
            inputs = (features,) * (1 + self._trunk.core.two_inputs)
            latent, _, states, _ = self._sequence(inputs, lstm_states, lstm_states, starts)
        else:
            latent, states = self._act(features, lstm_states, starts)
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent)), states

    def predict_values(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, lstm_states: States, episode_starts: th.Tensor
    ) -> th.Tensor:
        """Return values `(batch, 1)` under the critic's state."""
        features = self._features(obs)[-1]
        starts = self._check((features,), episode_starts, lstm_states)
        inputs = (features,) * (1 + self._trunk.core.two_inputs)
        given = inputs, lstm_states, lstm_states, starts
        # One program serves here and in `forward`: rollouts end with this call, and time limits cause it.
        acted = self._act_with_heads(*given, deterministic=True, max_waste=math.inf)
        if acted is not None:
            return acted[1]
        _, latent, _, _ = self._run(*given, max_waste=math.inf)
        values: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(latent))
        return values

    def evaluate_actions(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, actions: th.Tensor, lstm_states: RNNStates, episode_starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Return values, log-probabilities and entropies of what was done, differentiable.

        Args:
            obs: `(n_seq * steps, *obs_shape)`, each sequence's steps together.
            actions: `(n_seq * steps, ...)`, as `forward` returned them.
            lstm_states: the states at the sequences' starts, pairs of `(n_layers, n_seq, width)`.
            episode_starts: `(n_seq * steps,)`; episodes may start anywhere within a sequence.
        """
        features = self._features(obs)
        starts = self._check(features, episode_starts, lstm_states.pi, lstm_states.vf)
        latent_pi, latent_vf = self._bucketed_sequence(features, lstm_states.pi, lstm_states.vf, starts)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi))
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        return values, self._log_prob(distribution, actions), distribution.entropy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act on observations as they come from an environment.

        Args:
            observation: one observation, or one of each environment.
            state: the pair of `(n_layers, n_envs, width)` that the last call returned; None is zeros.
            episode_start: for each environment whether its episode starts, in any shape and dtype.
            deterministic: take the most likely action.

        Returns:
            actions, and the next state.

        Raises:
            ValueError: a state or flags of another size; one line.
        """
        if state is not None:
            state = state_pair(state)
        if episode_start is not None:
            episode_start = numbers("episode_start", episode_start)
        return super().predict(observation, state, episode_start, deterministic)

    def extract_features(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> th.Tensor | tuple[th.Tensor, th.Tensor]:
        """Extract features as SB3 does, after the observation statistics of `weights`, if there are any."""
        if self.normalizer is None:
            return super().extract_features(obs, features_extractor)
        if self.share_features_extractor:
            features: th.Tensor = (features_extractor or self.features_extractor)(self.normalizer(obs))
            return features
        obs = self.normalizer(obs)
        return self.pi_features_extractor(obs), self.vf_features_extractor(obs)

    @property
    def device(self) -> th.device:
        """Where the parameters are; SB3 looks for the first of them, several times in each `predict`."""
        return self.trunk.device if "trunk" in self._modules else super().device

    def train(self, mode: bool = True) -> Self:
        """Set torch's mode; `predict` does at every call, hence nothing where every module is in it."""
        return self if _are_in_mode(self, mode) else super().train(mode)

    def set_training_mode(self, mode: bool) -> None:
        """Set SB3's mode; after training the parameters are checked, before anything acts by them.

        Raises:
            ValueError: a parameter that is not finite.
        """
        if self.training and not mode:
            check_finite(self, f"after update {self._trainings}" if self._trainings else "before any update")
        if mode:
            unwatch(self.parameters())
        self._trainings += mode
        super().set_training_mode(mode)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return torch's dictionary, of finite parameters only: every way of saving writes it.

        Raises:
            ValueError: a parameter that is not finite.
        """
        check_finite(self, "and is not saved")
        return super().state_dict(*args, **kwargs)

    def expect_segments(self, count: int, length: int) -> None:
        """Tell that minibatches will be `count` sequences of `length` steps: that shape is never padded."""
        self._buckets.add(count, length)

    def _run(
        self,
        features: tuple[th.Tensor, ...],
        pi: States,
        vf: States,
        starts: th.Tensor,
        max_waste: float | None = None,
    ) -> tuple[th.Tensor, th.Tensor, States, States]:
        """Return one step by the prepared parameters; anything longer, or with a gradient, as a sequence."""
        if self._is_step(features, pi):
            stepped: tuple[th.Tensor, th.Tensor, States, States] = self._step(
                self._programs.step, head_parameters(self), pi, vf, features, starts, max_waste=max_waste
            )
            return stepped
        return self._sequence(features, pi, vf, starts)

    def _by_sb3(
        self, latent_pi: th.Tensor, latent_vf: th.Tensor, *, deterministic: bool
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Compute actions, values and log-probabilities by SB3's modules, or a user's in their place."""
        latent_pi = self.mlp_extractor.forward_actor(latent_pi)
        latent_vf = self.mlp_extractor.forward_critic(latent_vf)
        values = self.value_net(latent_vf)
        distribution = self._get_action_dist_from_latent(latent_pi)
        actions = distribution.get_actions(deterministic=deterministic)
        if self.squash_output:
            actions = to_env_units(actions, self.action_space)
        log_prob = self._log_prob(distribution, actions)
        return actions.reshape((-1, *(self.action_space.shape or ()))), values, log_prob

    def _log_prob(self, distribution: Distribution, actions: th.Tensor) -> th.Tensor:
        """Compute log-probabilities of actions as rollouts play them: the same here as in training."""
        if self.squash_output:
            actions = from_env_units(actions, self.action_space)
        return distribution.log_prob(actions)

    def _act_unless_changed(self, *given: Any, deterministic: bool) -> Acted | None:
        """Act as `_act_with_heads` does; the first time compare with SB3's modules.

        None as well, with the random state as before, where the comparison or a NaN leaves it to them.
        """
        before = None if self._is_checked else RandomState(given[-1].device)
        acted = self._act_with_heads(*given, deterministic=deterministic)
        if acted is None or any(map(math.isnan, acted[2].tolist())):  # SB3's distribution says what is wrong
            return None
        if before is not None:
            self._is_checked = True
            after = RandomState(given[-1].device)
            before.restore()
            actions, values, log_prob, latents, _, _ = acted
            latent_pi, latent_vf = latents.split(self._trunk.core.latent_widths, dim=1)
            theirs = self._by_sb3(latent_pi, latent_vf, deterministic=deterministic)
            told = difference(self, [actions, values, log_prob], list(theirs))
            if told:
                self._leaves_heads_to_sb3 = True
                before.restore()
                warnings.warn(
                    f"{type(self).__name__}: a rollout's compiled step and SB3's modules differ in {told}: "
                    "something was put in their way where the policy does not look. SB3's modules, which "
                    "training uses, compute rollouts from now on, more slowly",
                    stacklevel=3,
                )
                return None
            after.restore()
        return acted

    def _act_with_heads(
        self,
        features: tuple[th.Tensor, ...],
        pi: States,
        vf: States,
        starts: th.Tensor,
        *,
        deterministic: bool,
        max_waste: float | None = None,
    ) -> Acted | None:
        """Compute a step by one program; None where heads are torch's to compute."""
        heads = head_parameters(self) if self._is_step(features, pi) else ()
        if not heads or self._leaves_heads_to_sb3:
            return None
        noise = draw_noise(self, starts.shape[0], deterministic, starts.device)
        program = acting_program(self)
        acted: Acted = self._step(program, heads, pi, vf, features, starts, noise, max_waste=max_waste)
        return acted

    def _is_step(self, features: tuple[th.Tensor, ...], states: States) -> bool:
        same = features[0].shape[0] == states[0].shape[1]  # (len() of a tensor is Python's)
        return same and not th.is_grad_enabled() and not in_transform()

    def _step(
        self,
        program: PackedJit,
        heads: tuple[th.Tensor, ...],
        pi: States,
        vf: States,
        features: tuple[th.Tensor, ...],
        *others: th.Tensor,
        max_waste: float | None,
    ) -> Any:
        """Call an acting program with its batch padded to a bucket, and cut what it returns."""
        batch = features[0].shape[0]
        (rows,) = self._acting_buckets.fit(batch, max_waste=max_waste)
        held = self.trunk.prepared(self._programs.prepare, *heads)
        own = vf if self._trunk.core.has_two_memories else None  # no other critic reads a state
        with on_device(features[0].device):
            if rows == batch:
                return program(held, pi, own, features, *others)
            *results, pi, vf = program(
                held,
                _padded_state(pi, rows),
                None if own is None else _padded_state(own, rows),
                tuple([pad_rows(x, rows) for x in features]),
                *[pad_rows(x, rows) for x in others],
            )
        states = [tuple([part[:, :batch] for part in pair]) for pair in (pi, vf)]
        return *[result[:batch] for result in results], *states

    def _act(self, features: th.Tensor, states: States, starts: th.Tensor) -> tuple[th.Tensor, States]:
        with on_device(starts.device):
            latent, pair = self._programs.act(
                self.trunk.prepared(self._programs.prepare, *head_parameters(self)),
                tuple(states),
                features,
                starts,
            )
        return latent, pair

    def _sequence(
        self, features: tuple[th.Tensor, ...], pi: States, vf: States, starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, States, States]:
        mapped: tuple[th.Tensor, th.Tensor, States, States] = self._programs.sequence(
            self.trunk.tree(), tuple(pi), tuple(vf), features, starts
        )
        return mapped

    def _bucketed_sequence(
        self, features: tuple[th.Tensor, ...], pi: States, vf: States, starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        count = pi[0].shape[1]
        steps = len(features[0]) // count
        rows, length = self._buckets.fit(count, steps)
        if (rows, length) == (count, steps):
            return self._sequence(features, pi, vf, starts)[:2]

        def padded(flat: th.Tensor) -> th.Tensor:
            return pad_rows(flat.reshape(count, steps, -1), rows, length).flatten(0, 1)

        latents = self._sequence(
            tuple([padded(x) for x in features]),
            _padded_state(pi, rows),
            _padded_state(vf, rows),
            padded(starts)[:, 0],
        )[:2]
        latent_pi, latent_vf = (x.reshape(rows, length, -1)[:count, :steps].flatten(0, 1) for x in latents)
        return latent_pi, latent_vf

    def _features(self, obs: PyTorchObs) -> tuple[th.Tensor, ...]:
        """Return the features: one for both, or the actor's and the critic's."""
        features: Any = self.extract_features(obs)
        return (features,) if self.share_features_extractor else tuple(features)

    def _check(self, features: tuple[th.Tensor, ...], starts: th.Tensor, *states: States) -> th.Tensor:
        """Return the flags, `(rows,)`, once flags and states have been found to fit the rows of features."""
        layers, _, width = self.lstm_hidden_state_shape
        rows = features[0].shape[0]
        one_step = layers, rows, width
        for part in itertools.chain(*states):
            shape = part.shape
            if shape == one_step:
                continue
            if len(shape) != 3 or (shape[0], shape[2]) != (layers, width) or not shape[1] or rows % shape[1]:
                raise ValueError(
                    f"recurrent state has shape {tuple(shape)}, expected ({layers}, n, {width}) with n "
                    f"dividing the {rows} observations"
                )
        return flags(starts, rows)

    def _build(self, lr_schedule: Schedule) -> None:
        """Build everything; called by the parent's constructor once the features extractor is there."""
        if isinstance(self.action_dist, BernoulliDistribution):  # it refuses the buffer's integers
            self.action_dist = MultiCategoricalDistribution([2] * self.action_dist.action_dims)
        super()._build(lr_schedule)
        if "trunk" not in self._modules:  # `_build_mlp_extractor` is a user's alone: the memory leads to it
            self._build_trunk(((), ()))
            parameters, rate = self.parameters(), lr_schedule(1)
            self.optimizer = self.optimizer_class(  # type: ignore[call-arg]  # Optimizer lacks lr
                parameters, lr=rate, **self.optimizer_kwargs
            )
        if has_scaled_parts(self):
            self.optimizer = optimizer_with_scaled_parts(self, lr_schedule(1))
        freeze_parts(self)
        if not isinstance(self.mlp_extractor, Torsos):
            self._try_mlp_extractor()

    def _try_mlp_extractor(self) -> None:
        """Pass zeros through a user's network: what does not fit is told here, and not within a rollout."""
        widths = zip(("forward_actor", "forward_critic"), self._trunk.core.latent_widths, strict=True)
        self.mlp_extractor.eval()
        for name, width in widths:
            try:
                with th.no_grad(), th.random.fork_rng(devices=[]):
                    getattr(self.mlp_extractor, name)(th.zeros(2, width))
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{type(self).__name__}: mlp_extractor.{name} does not take what it is given, {width} "
                    f"features ({error}); they come from the memory ({self.lstm_output_dim} wide), or from "
                    "net_arch's layers where _build_mlp_extractor calls super()"
                ) from error
        self.mlp_extractor.train()

    def _build_mlp_extractor(self) -> None:
        """Build the trunk with its torsos, and the torsos that torch computes."""
        arch = (
            self.net_arch if isinstance(self.net_arch, dict) else {"pi": self.net_arch, "vf": self.net_arch}
        )
        torsos = tuple(arch.get("pi", [])), tuple(arch.get("vf", []))
        self._build_trunk(torsos)
        rest = torsos if self.has_torch_torsos else ((), ())
        self.mlp_extractor = Torsos(  # type: ignore[assignment]  # Torsos replaces MlpExtractor
            self._trunk.core.latent_widths, rest, self.activation_fn
        )

    def _build_trunk(self, torsos: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        activation = ACTIVATION_NAMES.get(self.activation_fn)
        if activation is None and self._encoder:
            known = ", ".join(cls.__name__ for cls in ACTIVATION_NAMES)
            raise ValueError(f"encoder: activation_fn must be one of {known}, got {self.activation_fn}")
        extractor = self.features_extractor
        obs_shape: tuple[int, ...] = (self.features_dim,)
        cnn_features = ActorCriticConfig.cnn_features
        if isinstance(extractor, ImageInput):
            obs_shape, cnn_features = extractor.channels_last, extractor.cnn_features
        config = ActorCriticConfig(
            obs_shape=obs_shape,
            action=Discrete(1),  # the heads are SB3's
            memory=self._memory.name,
            memory_config=self._memory.config,
            encoder=self._encoder,
            actor_torso=torsos[0] if activation else (),
            critic_torso=torsos[1] if activation else (),
            activation=activation or "tanh",
            critic_memory=self._critic_memory,
            cnn_features=cnn_features,
        )
        core = Trunk(config, two_inputs=not self.share_features_extractor, torso_gain=math.sqrt(2))
        self._trunk = FlatTrunk(core, orthogonal=self.ortho_init)
        self.has_torch_torsos = activation is None and any(torsos)
        self._programs = Programs.of(self._trunk)
        if self.weights is not None:
            check_weights(self, self.weights)
        key = jax.random.key(int(th.randint(0, 2**31 - 1, ()).item()))  # follows SB3's seed
        self.trunk = JaxModule(self._programs.init(key))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        memory = dict(self._memory.config)
        return {
            **data,
            "share_features_extractor": self.share_features_extractor,
            "memory": self._memory.name,
            "critic_memory": self._critic_memory,
            "encoder": self._encoder,
            "weights": self.weights,
            "check_rollout": self.check_rollout,
            "dynamics_lr_scale": self.dynamics_lr_scale,
            "freeze": self.freeze,
            "lr_scales": dict(self.lr_scales),
            **memory,
        }

    @classmethod
    def _extractor_class(cls, given: type[BaseFeaturesExtractor] | None) -> type[BaseFeaturesExtractor]:
        return cls.default_features_extractor if given is None else given

    @classmethod
    def _check_observation_space(
        cls, space: spaces.Space[Any], extractor: type[BaseFeaturesExtractor]
    ) -> None:
        if isinstance(space, spaces.Dict) and extractor in (FlattenExtractor, ImageInput):
            raise ValueError(f"{cls.__name__}: the observation space is a Dict: use MultiInputS5Policy")
        if not isinstance(space, spaces.Dict) and extractor is CombinedExtractor:
            raise ValueError(f"{cls.__name__}: expected a Dict observation space, got {space}: use S5Policy")


class CnnS5Policy(S5Policy):
    """`S5Policy` for images: the core's Nature CNN reads them. `NatureCNN`'s arguments configure it."""

    default_features_extractor = ImageInput

    @classmethod
    def _extractor_class(cls, given: type[BaseFeaturesExtractor] | None) -> type[BaseFeaturesExtractor]:
        return ImageInput if given is NatureCNN else super()._extractor_class(given)


class MultiInputS5Policy(S5Policy):
    """`S5Policy` for dictionaries of observations: SB3's `CombinedExtractor` stands before it."""

    default_features_extractor = CombinedExtractor


def _are_in_mode(module: nn.Module, training: bool) -> bool:
    """Tell whether a module and all below it are in training mode, or in evaluation mode."""
    if module.training is not training:
        return False
    for child in module._modules.values():
        if child is not None and not _are_in_mode(child, training):
            return False
    return True


def _padded_state(states: States, count: int) -> States:
    first, second = (pad_rows(part, len(part), count) for part in states)
    return first, second
