"""S5 policies for sb3-contrib's `RecurrentPPO`, with the arguments of its LSTM policies understood."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import jax
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from s5_adapters.core import ActorCriticConfig, Discrete
from s5_adapters.core.weights import Policy, as_policy
from s5_adapters.sb3.acting import Acting, acting_program, draw_noise, head_parameters
from s5_adapters.sb3.arguments import ACTIVATION_NAMES, critic_topology, fill_from, memory_from_arguments
from s5_adapters.sb3.packed import PackedJit
from s5_adapters.sb3.portable import check_weights, load_weights, statistics_module, to_portable
from s5_adapters.sb3.trunk import Programs, Trunk
from s5_adapters.torch_bridge import Buckets, JaxModule, Normalizer, on_device

__all__ = ["CnnS5Policy", "ImageInput", "MultiInputS5Policy", "S5Policy"]

MAX_STOCK_STATE = 16_384
"""Numbers in one environment's state above which storing it at every step, as the stock buffer does, is
refused.
"""

States = tuple[th.Tensor, th.Tensor]


class RecurrentShape(NamedTuple):
    """What `RecurrentPPO` reads of an LSTM to size its buffer."""

    num_layers: int
    hidden_size: int


class ImageInput(BaseFeaturesExtractor):
    """Passes images on, flattened: the core's Nature CNN does the work. It takes `NatureCNN`'s arguments.

    Args:
        observation_space: an image space, channels first (SB3 transposes).
        features_dim: width of the CNN's last layer.
        normalized_image: the space holds floats in [0, 1] rather than bytes.

    Raises:
        AssertionError: for a space that is no image.
    """

    def __init__(
        self, observation_space: spaces.Space, features_dim: int = 512, normalized_image: bool = False
    ) -> None:
        """See the class."""
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise AssertionError(  # as SB3's NatureCNN
                f"CnnS5Policy: {observation_space} is no image (three axes of uint8): use S5Policy, or "
                "normalize_images=False for images of floats"
            )
        super().__init__(observation_space, int(th.tensor(observation_space.shape).prod()))
        self.cnn_features = features_dim

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """`(batch, channels, height, width)` to `(batch, channels * height * width)`."""
        return observations.flatten(1)


class Torsos(nn.Module):
    """What stands between JAX's latents and the heads: torsos whose activation the core does not compute."""

    def __init__(
        self, dims: tuple[int, int], archs: tuple[list[int], list[int]], activation: type[nn.Module]
    ) -> None:
        """Build two sequences of dense layers, both empty where the core has the torsos."""
        super().__init__()
        nets = [
            nn.Sequential(*create_mlp(d, -1, arch, activation)) for d, arch in zip(dims, archs, strict=True)
        ]
        self.policy_net, self.value_net = nets
        self.latent_dim_pi, self.latent_dim_vf = ([d, *a][-1] for d, a in zip(dims, archs, strict=True))

    def forward_actor(self, latent: th.Tensor) -> th.Tensor:
        """The action head's input."""
        return self.policy_net(latent)

    def forward_critic(self, latent: th.Tensor) -> th.Tensor:
        """The value head's input."""
        return self.value_net(latent)


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
        **memory_config: the memory's own arguments: `d_state`, `dt_min`, `dt_max`, `discretization`, ...

    Raises:
        ValueError: an argument the memory does not know, an observation space that needs another policy, or
            `weights` of another network or other spaces.
        TypeError: `lstm_kwargs`.
        AssertionError: `shared_lstm=True` with `enable_critic_lstm` unset or True, as in SB3.
    """

    default_features_extractor: type[BaseFeaturesExtractor] = FlattenExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
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
        **memory_config: Any,
    ) -> None:
        """See the class."""
        self.weights = None if weights is None else as_policy(weights)
        if self.weights is not None:
            filled = fill_from(
                self.weights.config,
                {
                    "memory": memory,
                    "encoder": encoder,
                    "critic_memory": critic_memory,
                    "shared_lstm": shared_lstm,
                    "enable_critic_lstm": enable_critic_lstm,
                    "net_arch": net_arch,
                    "activation_fn": activation_fn,
                    "features_extractor_kwargs": features_extractor_kwargs,
                    "d_model": d_model,
                    "lstm_hidden_size": lstm_hidden_size,
                    "n_layers": n_layers,
                    "n_lstm_layers": n_lstm_layers,
                    "memory_config": memory_config,
                },
            )
            memory, encoder, critic_memory = filled["memory"], filled["encoder"], filled["critic_memory"]
            net_arch, activation_fn = filled["net_arch"], filled["activation_fn"]
            features_extractor_kwargs = filled["features_extractor_kwargs"]
            d_model, n_layers, memory_config = filled["d_model"], filled["n_layers"], filled["memory_config"]
        extractor = self._extractor_class(features_extractor_class)
        self._check_observation_space(observation_space, extractor)
        self._memory = memory_from_arguments(
            memory or "s5",
            d_model=d_model,
            n_layers=n_layers,
            lstm_hidden_size=lstm_hidden_size,
            n_lstm_layers=n_lstm_layers,
            lstm_kwargs=lstm_kwargs,
            config=memory_config,
        )
        self._critic_memory = critic_topology(
            critic_memory,
            shared_lstm,
            enable_critic_lstm,
            share_features_extractor=share_features_extractor,
        )
        self._encoder = tuple(encoder or ())
        is_image = normalize_images and is_image_space(observation_space)
        self._observes_vectors = isinstance(observation_space, spaces.Box) and not is_image
        self.normalizer: Normalizer | None = None
        if extractor is ImageInput and not normalize_images:
            features_extractor_kwargs = {"normalized_image": True, **(features_extractor_kwargs or {})}
        if net_arch is None and issubclass(extractor, ImageInput | NatureCNN):
            net_arch = []  # as SB3 does after a CNN
        self._buckets = Buckets(max_waste=4.0)
        self._acting_buckets = Buckets(max_waste=4.0, exact_first=True)
        self._acting: Acting | None = None
        # The recurrent parent's constructor would build LSTMs and an optimiser for them.
        ActorCriticPolicy.__init__(
            self,
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            activation_fn,
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
        self.lstm_output_dim = self._memory.d_model
        self.shared_lstm = self._critic_memory.startswith("shared")
        self.enable_critic_lstm = self._critic_memory == "separate"
        if self.weights is not None:
            load_weights(self, self.weights)
            if self.weights.obs_statistics is not None:
                shape = self.observation_space.shape
                self.normalizer = statistics_module(self.weights.obs_statistics, shape)
        self.trunk.prepared(self._programs.prepare, *head_parameters(self))  # compiled now, not in a rollout

    def to_policy(self) -> Policy:
        """The network as a portable policy, which acts without SB3 and torch: see `save_policy`.

        Raises:
            ValueError: a part of it that is not portable; one line that names it.
        """
        return to_portable(self)

    @property
    def trunk_config(self) -> ActorCriticConfig:
        """The architecture of what JAX computes; its action is not used."""
        return self._trunk.config

    @property
    def has_two_encoders(self) -> bool:
        """Whether actor and critic have an encoder each, with parameters."""
        return self._trunk.two_inputs and bool(self._encoder or self._trunk.config.is_image)

    @property
    def lstm_actor(self) -> RecurrentShape:
        """What the stock `RecurrentPPO` sizes its buffer by.

        Raises:
            ValueError: a state too large to be stored at every step.
        """
        size = self._trunk.layout.size
        if size > MAX_STOCK_STATE:
            raise ValueError(
                f"memory {self._memory.name!r} has a state of {size} numbers, and RecurrentPPO stores one "
                f"for every step (at most {MAX_STOCK_STATE} numbers): use s5_adapters.sb3.S5RecurrentPPO"
            )
        return RecurrentShape(*self._trunk.layout.shape)

    def forward(
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: th.Tensor, deterministic: bool = False
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RNNStates]:
        """Act and evaluate.

        Args:
            obs: `(batch, *obs_shape)`, as tensors.
            lstm_states: the actor's and the critic's state, each a pair of `(n_layers, batch, width)`.
            episode_starts: `(batch,)`, 1.0 where the observation is an episode's first.
            deterministic: take the most likely action.

        Returns:
            actions `(batch, *action_shape)`, values `(batch, 1)`, log-probabilities `(batch,)`, next states.
        """
        features = self._features(obs)
        states = lstm_states.pi, lstm_states.vf
        acted = self._act_with_heads(features, *states, episode_starts, deterministic=deterministic)
        if acted is not None:
            actions, values, log_prob, pi, vf = acted
            if not any(map(math.isnan, log_prob.tolist())):  # else SB3's distribution says what is wrong
                if not isinstance(self.action_space, spaces.Box):
                    actions = actions.long()
                return actions, values, log_prob, RNNStates(pi, vf)
        latent_pi, latent_vf, pi, vf = self._run(features, *states, episode_starts)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi))
        actions = distribution.get_actions(deterministic=deterministic)
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        log_prob = distribution.log_prob(actions)
        return actions.reshape((-1, *self.action_space.shape)), values, log_prob, RNNStates(pi, vf)

    def get_distribution(
        self, obs: PyTorchObs, lstm_states: States, episode_starts: th.Tensor
    ) -> tuple[Distribution, States]:
        """The action distribution and the actor's next state; the critic is not computed."""
        features = self._features_of(obs, self.pi_features_extractor)
        self._check_state(lstm_states, features)
        if th.is_grad_enabled() or len(features) != lstm_states[0].shape[1]:
            inputs = (features,) * (1 + self._trunk.two_inputs)
            latent, _, states, _ = self._sequence(inputs, lstm_states, lstm_states, episode_starts)
        else:
            latent, states = self._act(features, lstm_states, episode_starts)
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent)), states

    def predict_values(self, obs: PyTorchObs, lstm_states: States, episode_starts: th.Tensor) -> th.Tensor:
        """Values `(batch, 1)` under the critic's state."""
        features = self._features_of(obs, self.vf_features_extractor)
        inputs = (features,) * (1 + self._trunk.two_inputs)
        states = lstm_states, lstm_states
        # One program serves here and in `forward`: rollouts end with this call, and time limits cause it.
        acted = self._act_with_heads(inputs, *states, episode_starts, deterministic=True, max_waste=math.inf)
        if acted is not None:
            return acted[1]
        _, latent, _, _ = self._run(inputs, *states, episode_starts, max_waste=math.inf)
        return self.value_net(self.mlp_extractor.forward_critic(latent))

    def evaluate_actions(
        self, obs: PyTorchObs, actions: th.Tensor, lstm_states: RNNStates, episode_starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Values, log-probabilities and entropies of what was done, differentiable.

        Args:
            obs: `(n_seq * steps, *obs_shape)`, each sequence's steps together.
            actions: `(n_seq * steps, ...)`.
            lstm_states: the states at the sequences' starts, pairs of `(n_layers, n_seq, width)`.
            episode_starts: `(n_seq * steps,)`; episodes may start anywhere within a sequence.
        """
        features = self._features(obs)
        latent_pi, latent_vf = self._bucketed_sequence(
            features, lstm_states.pi, lstm_states.vf, episode_starts
        )
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi))
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        return values, distribution.log_prob(actions), distribution.entropy()

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
        """One step by the prepared parameters; anything longer, or with a gradient, as a sequence."""
        if self._is_step(features, pi):
            return self._step(
                self._programs.step, head_parameters(self), pi, vf, features, starts, max_waste=max_waste
            )
        self._check_state(pi, features[0])
        self._check_state(vf, features[0])
        return self._sequence(features, pi, vf, starts)

    def _act_with_heads(
        self,
        features: tuple[th.Tensor, ...],
        pi: States,
        vf: States,
        starts: th.Tensor,
        *,
        deterministic: bool,
        max_waste: float | None = None,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, States, States] | None:
        """Actions, values, log-probabilities and states of one step in one program; None where the heads are
        torch's to compute.
        """
        heads = head_parameters(self) if self._is_step(features, pi) else ()
        if not heads:
            return None
        noise = draw_noise(self, len(starts), deterministic, starts.device)
        program = acting_program(self)
        return self._step(program, heads, pi, vf, features, starts, noise, max_waste=max_waste)

    def _is_step(self, features: tuple[th.Tensor, ...], states: States) -> bool:
        return len(features[0]) == states[0].shape[1] and not th.is_grad_enabled()

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
        self._check_state(pi, features[0])
        self._check_state(vf, features[0])
        batch = len(features[0])
        (rows,) = self._acting_buckets.fit(batch, max_waste=max_waste)
        held = self.trunk.prepared(self._programs.prepare, *heads)
        with on_device(features[0].device):
            if rows == batch:
                return program(held, pi, vf, features, *others)
            *results, pi, vf = program(
                held,
                _padded_state(pi, rows),
                _padded_state(vf, rows),
                tuple([_padded(x, rows) for x in features]),
                *[_padded(x, rows) for x in others],
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
        return self._programs.sequence(self.trunk.tree(), tuple(pi), tuple(vf), features, starts)

    def _bucketed_sequence(
        self, features: tuple[th.Tensor, ...], pi: States, vf: States, starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        self._check_state(pi, features[0])
        self._check_state(vf, features[0])
        count = pi[0].shape[1]
        steps = len(features[0]) // count
        rows, length = self._buckets.fit(count, steps)
        if (rows, length) == (count, steps):
            return self._sequence(features, pi, vf, starts)[:2]

        def padded(flat: th.Tensor) -> th.Tensor:
            x = flat.reshape(count, steps, -1)
            return nn.functional.pad(x, (0, 0, 0, length - steps, 0, rows - count)).flatten(0, 1)

        latents = self._sequence(
            tuple([padded(x) for x in features]),
            _padded_state(pi, rows),
            _padded_state(vf, rows),
            padded(starts)[:, 0],
        )[:2]
        latent_pi, latent_vf = (x.reshape(rows, length, -1)[:count, :steps].flatten(0, 1) for x in latents)
        return latent_pi, latent_vf

    def _features(self, obs: PyTorchObs) -> tuple[th.Tensor, ...]:
        if self.share_features_extractor:
            return (self._features_of(obs, self.features_extractor),)
        extractors = (self.pi_features_extractor, self.vf_features_extractor)
        return tuple([self._features_of(obs, extractor) for extractor in extractors])

    def _features_of(self, obs: PyTorchObs, extractor: BaseFeaturesExtractor) -> th.Tensor:
        if self.normalizer is not None:
            return extractor(self.normalizer(obs))
        if type(extractor) is FlattenExtractor and self._observes_vectors:
            return obs.float().flatten(1)  # what follows comes to the same, more slowly
        features: th.Tensor = super(ActorCriticPolicy, self).extract_features(obs, extractor)
        return features

    def _check_state(self, states: States, features: th.Tensor) -> None:
        layers, _, width = self.lstm_hidden_state_shape
        for part in states:
            if (
                part.dim() != 3
                or (part.shape[0], part.shape[2]) != (layers, width)
                or len(features) % part.shape[1]
            ):
                raise ValueError(
                    f"recurrent state has shape {tuple(part.shape)}, expected ({layers}, n, {width}) with n "
                    f"dividing the {len(features)} observations"
                )

    def _build_mlp_extractor(self) -> None:
        """Build the trunk; called by the parent's constructor once the features extractor is there."""
        arch = (
            self.net_arch if isinstance(self.net_arch, dict) else {"pi": self.net_arch, "vf": self.net_arch}
        )
        torsos = tuple(arch.get("pi", [])), tuple(arch.get("vf", []))
        activation = ACTIVATION_NAMES.get(self.activation_fn)
        if activation is None and self._encoder:
            known = ", ".join(cls.__name__ for cls in ACTIVATION_NAMES)
            raise ValueError(f"encoder: activation_fn must be one of {known}, got {self.activation_fn}")
        image = isinstance(self.features_extractor, ImageInput)
        channels_first = self.features_extractor._observation_space.shape if image else ()
        config = ActorCriticConfig(
            obs_shape=(*channels_first[1:], channels_first[0]) if image else (self.features_dim,),
            action=Discrete(1),  # the heads are SB3's
            memory=self._memory.name,
            memory_config=self._memory.config,
            encoder=self._encoder,
            actor_torso=torsos[0] if activation else (),
            critic_torso=torsos[1] if activation else (),
            activation=activation or "tanh",
            critic_memory=self._critic_memory,
            cnn_features=self.features_extractor.cnn_features if image else 512,
        )
        self._trunk = Trunk(config, two_inputs=not self.share_features_extractor, orthogonal=self.ortho_init)
        self.has_torch_torsos = activation is None and any(torsos)
        self._programs = Programs.of(self._trunk)
        if self.weights is not None:
            check_weights(self, self.weights)
        key = jax.random.key(int(th.randint(0, 2**31 - 1, ()).item()))  # follows SB3's seed
        self.trunk = JaxModule(self._programs.init(key))
        rest = ((), ()) if activation else torsos
        self.mlp_extractor = Torsos(self._trunk.latent_dims, rest, self.activation_fn)

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
            **memory,
        }

    @classmethod
    def _extractor_class(cls, given: type[BaseFeaturesExtractor] | None) -> type[BaseFeaturesExtractor]:
        return cls.default_features_extractor if given is None else given

    @classmethod
    def _check_observation_space(cls, space: spaces.Space, extractor: type[BaseFeaturesExtractor]) -> None:
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


def _padded(rows: th.Tensor, count: int) -> th.Tensor:
    missing = count - len(rows)
    return nn.functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


def _padded_state(states: States, count: int) -> States:
    first, second = states
    missing = count - first.shape[1]
    if missing:
        first, second = (nn.functional.pad(part, (0, 0, 0, missing)) for part in states)
    return first, second
