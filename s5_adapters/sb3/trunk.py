"""The part of a policy that JAX computes: encoder, memory and torsos, in the layout of sb3-contrib.

Stable-Baselines3 keeps rows flat, `(n_seq * steps, features)` with each sequence's steps together, and a
recurrent state as a pair (hidden, cell) of `(n_layers, n_seq, width)`. Everything is transposed here,
inside the compiled functions, and nowhere else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s5_adapters.core import ActorCriticConfig, Memory
from s5_adapters.core.network.actor_critic import MLP, Encoder
from s5_adapters.core.xla.shared import Shared
from s5_adapters.sb3.packed import Joined, PackedJit, join, parted
from s5_adapters.sb3.state import Pair, StateLayout
from s5_adapters.torch_bridge import jax2torch

__all__ = ["Programs", "Trunk"]

Params = dict[str, Any]


@dataclass(frozen=True)
class Trunk:
    """Encoder, memory and torsos of an `ActorCriticConfig`, without the heads, which are torch's.

    Attributes:
        config: the architecture; its action is not used. An image's features arrive flattened, channels
        first.
        two_inputs: actor and critic have features of their own (`share_features_extractor=False`), and with
            them an encoder each.
        orthogonal: initialise dense layers as SB3's `ortho_init=True` does (orthogonal, gain sqrt 2, zero
            biases), else as torch does (uniform in +-1/sqrt(fan_in)).
    """

    config: ActorCriticConfig
    two_inputs: bool = False
    orthogonal: bool = True

    @functools.cached_property
    def memory(self) -> Memory:
        """The memory model."""
        return self.config.make_memory()

    @functools.cached_property
    def layout(self) -> StateLayout:
        """The state's place in sb3-contrib's pair."""
        return StateLayout(self.memory)

    @property
    def separate(self) -> bool:
        """Whether the critic has a memory of its own."""
        return self.config.critic_memory == "separate"

    @property
    def latent_dims(self) -> tuple[int, int]:
        """Widths of what the action head and the value head receive."""
        width = self.memory.d_model
        critic = self._encoded_width if self.config.critic_memory == "none" else width
        return [width, *self.config.actor_torso][-1], [critic, *self.config.critic_torso][-1]

    def init(self, key: jax.Array) -> Params:
        """Parameters: `encoder`, `memory`, `actor`, `critic`, where there are two also `critic_encoder` and
        `critic_memory`. Those of torsos without layers are empty.
        """
        keys = iter(jax.random.split(key, 7))
        obs = jnp.zeros((1, *self.config.obs_shape), jnp.float32)
        dense = {
            name: Encoder(self.config).init(next(keys), obs).get("params", {}) for name in self._encoders
        }
        encoded = Encoder(self.config).apply({"params": dense["encoder"]}, obs)
        memorised = jnp.zeros((1, self.memory.d_model), jnp.float32)
        for name, torso in self._torsos.items():
            bare = name == "critic" and self.config.critic_memory == "none"
            dense[name] = torso.init(next(keys), encoded if bare else memorised).get("params", {})
        if not self.orthogonal:
            dense = _uniform(next(keys), dense)
        names = ("memory", "critic_memory") if self.separate else ("memory",)
        memories = {name: self.memory.init(next(keys), encoded.shape[-1]) for name in names}
        return {**dense, **memories}

    def prepare(self, params: Params) -> Params:
        """The parameters with each memory's prepared for acting."""
        names = ("memory", "critic_memory") if self.separate else ("memory",)
        return {**params, **{name: self.memory.prepare(params[name]) for name in names}}

    def step(
        self,
        prepared: Params,
        pi: Pair,
        vf: Pair | None,
        features: tuple[jax.Array, ...],
        starts: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Pair, Pair]:
        """One step of actor and critic together.

        Args:
            prepared: from `prepare`.
            pi: the actor's state, two arrays `(n_layers, B, width)`.
            vf: the critic's; read only where the critic has a memory of its own, None where it has not.
            features: `(B, F)` once, or once for each of the two.
            starts: `(B,)`, nonzero where an episode starts.

        Returns:
            latents for the action head and the value head, the actor's and the critic's next state.
        """

        def run(name: str, pair: Pair, x: jax.Array) -> tuple[Pair, jax.Array]:
            state, y = self.memory.step(prepared[name], self.layout.unpack(pair), x, starts > 0.5)
            return self.layout.pack(state, len(x)), y

        return self._forward(prepared, pi, vf, features, run)

    def act(
        self, prepared: Params, pi: Pair, features: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Pair]:
        """One step of the actor alone: its latent and its next state."""
        inputs = (features,) * (1 + self.two_inputs)
        latent, _, pi, _ = self.step(prepared, pi, pi, inputs, starts)
        return latent, pi

    def sequence(
        self, params: Params, pi: Pair, vf: Pair, features: tuple[jax.Array, ...], starts: jax.Array
    ) -> tuple[jax.Array, jax.Array, Pair, Pair]:
        """Whole sequences, differentiable: rows flat, `(n_seq * steps, F)`, `starts (n_seq * steps,)`."""
        n_seq = pi[0].shape[1]
        resets = (starts > 0.5).reshape(n_seq, -1).T

        def run(name: str, pair: Pair, x: jax.Array) -> tuple[Pair, jax.Array]:
            x = jnp.swapaxes(x.reshape(n_seq, -1, x.shape[-1]), 0, 1)
            state, y = self.memory.apply(params[name], self.layout.unpack(pair), x, resets)
            return self.layout.pack(state, n_seq), jnp.swapaxes(y, 0, 1).reshape(-1, y.shape[-1])

        return self._forward(params, pi, vf, features, run)

    def _forward(
        self,
        params: Params,
        pi: Pair,
        vf: Pair | None,
        features: tuple[jax.Array, ...],
        run: Callable[[str, Pair, jax.Array], tuple[Pair, jax.Array]],
    ) -> tuple[jax.Array, jax.Array, Pair, Pair]:
        encoded = [self._encode(params[n], x) for n, x in zip(self._encoders, features, strict=True)]
        pi, memorised = run("memory", pi, encoded[0])
        if self.separate:
            vf, for_critic = run("critic_memory", vf, encoded[-1])
        elif self.config.critic_memory == "none":
            vf, for_critic = pi, encoded[-1]
        else:
            detached = self.config.critic_memory == "shared_detached"
            vf, for_critic = pi, jax.lax.stop_gradient(memorised) if detached else memorised
        actor, critic = self._torsos["actor"], self._torsos["critic"]
        latent_pi = actor.apply({"params": params["actor"]}, memorised)
        return latent_pi, critic.apply({"params": params["critic"]}, for_critic), pi, vf

    def _encode(self, params: Params, x: jax.Array) -> jax.Array:
        if self.config.is_image:
            height, width, channels = self.config.obs_shape
            x = jnp.moveaxis(x.reshape(-1, channels, height, width), 1, -1)
        return Encoder(self.config).apply({"params": params}, x)

    @property
    def _encoders(self) -> tuple[str, ...]:
        return ("encoder", "critic_encoder") if self.two_inputs else ("encoder",)

    @property
    def _torsos(self) -> dict[str, MLP]:
        config, gain = self.config, math.sqrt(2)
        return {
            "actor": MLP(config.actor_torso, config.activation, gain),
            "critic": MLP(config.critic_torso, config.activation, gain),
        }

    @property
    def _encoded_width(self) -> int:
        first = self.config.cnn_features if self.config.is_image else self.config.obs_shape[0]
        return [first, *self.config.encoder][-1]


class Programs(Shared):
    """A trunk's functions, compiled: `init` and `prepare` for arrays; `step` and `act`, and
    `sequence` with gradients, for torch. `Programs.of(trunk)` gives the one set of a process.
    """

    def __init__(self, trunk: Trunk) -> None:
        """Compile nothing yet."""
        super().__init__(trunk)

        def prepare(params: Params, *heads: jax.Array) -> Joined:
            return join((trunk.prepare(params), heads))

        def step(held: Joined, *args: Any) -> Any:
            return trunk.step(parted(held)[0], *args)

        def act(held: Joined, *args: Any) -> Any:
            return trunk.act(parted(held)[0], *args)

        self.init = jax.jit(trunk.init)
        self.prepare = jax.jit(prepare)
        self.step = PackedJit(step)
        self.act = PackedJit(act)
        self.sequence = jax2torch(trunk.sequence)


def _uniform(key: jax.Array, params: Params) -> Params:
    """Draw every dense and convolutional layer anew as torch initialises its own: +-1/sqrt(fan_in)."""
    if "kernel" not in params:
        keys = jax.random.split(key, max(1, len(params)))
        return {name: _uniform(k, params[name]) for name, k in zip(sorted(params), keys, strict=False)}
    bound = 1 / math.sqrt(math.prod(params["kernel"].shape[:-1]))
    return {
        name: jax.random.uniform(k, params[name].shape, jnp.float32, -bound, bound)
        for name, k in zip(("kernel", "bias"), jax.random.split(key), strict=True)
    }
