"""Portable policies: one ``.safetensors`` file that holds a network's weights and everything needed to act
with it.

The tensors are the parameters, named by their path (``params/trunk/memory/B``), and the observation
statistics if there are any. The file's metadata has two entries: ``policy``, a JSON document with the
architecture, the spaces, the environment and the training summary, and ``sha256``, the digest of the tensor
bytes and of the header without that entry. Nothing is unpickled, and nothing is made of a file's contents
before its digest has been checked and its tensors match the architecture that it claims. Files of format 1,
whose tensors have other names, are read as well.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import Array

from s5_adapters.core.files.format1 import from_format_1
from s5_adapters.core.memories.memory import Params, State
from s5_adapters.core.network.actor_critic import ActorCritic
from s5_adapters.core.network.config import ActorCriticConfig
from s5_adapters.core.network.distributions import ActionSpec, Box, Discrete, MultiDiscrete, distribution
from s5_adapters.core.network.masks import mask_inputs
from s5_adapters.core.network.normalization import CLIP, EPSILON, normalize
from s5_adapters.core.xla.processes import refuse_forked_process
from s5_adapters.core.xla.shared import Shared

FORMAT: Final = "s5-adapters policy 2"
_FORMAT_1: Final = "s5-adapters policy 1"
_LENGTH_BYTES: Final = 8
_LARGEST_HEADER: Final = 100_000_000
_ACTIONS: Final = {"Discrete": Discrete, "MultiDiscrete": MultiDiscrete, "Box": Box}


class PolicyFileError(ValueError):
    """A policy file is damaged, was tampered with or describes no policy; nothing of it was loaded."""


@dataclass(frozen=True)
class ObservationStatistics:
    """How observations were normalised in training: the arguments of ``normalize``.

    Attributes:
        mean: float32, ``obs_shape``.
        variance: float32, ``obs_shape``.
        epsilon: added to the variance.
        clip: bound of the normalised observation.
        samples: how many observations they rest on, which is the weight they have where a training that
            keeps such statistics goes on from them.

    """

    mean: np.ndarray[Any, Any]
    variance: np.ndarray[Any, Any]
    epsilon: float = EPSILON
    clip: float = CLIP
    samples: float = 10_000.0


@dataclass(frozen=True, eq=False)
class Policy:
    """A network with its weights, ready to act.

    Attributes:
        config: the network's architecture.
        params: its parameters, as ``ActorCritic(config).init`` structures them; copied, and read-only.
        obs_statistics: applied to every observation before the network sees it; None for none.
        env_id: the environment it was trained in, if known.
        env_kwargs: that environment's keyword arguments.
        training: a summary of its training, any JSON object.

    """

    config: ActorCriticConfig
    params: Params = field(repr=False)
    obs_statistics: ObservationStatistics | None = None
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", jax.tree.map(_read_only, self.params))

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields for pickling, without what was made of them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields from a pickle, perhaps of when parameters had format 1."""
        values = {f.name: state[f.name] for f in fields(self)}
        if "trunk" not in values["params"]:
            shapes = ActorCritic(values["config"]).param_shapes()
            values["params"] = _unflatten(from_format_1(_flatten(values["params"]), _flatten(shapes)), shapes)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @cached_property
    def net(self) -> ActorCritic:
        """The network."""
        return ActorCritic(self.config)

    def initial_state(self, batch_size: int) -> State:
        """Return the memory's state before the first step, leaves ``(batch_size, ...)``."""
        return self.net.initial_state(batch_size)

    def act(
        self,
        obs: Any,
        state: State,
        episode_starts: Any,
        key: Array | None = None,
        *,
        action_mask: Any = None,
    ) -> tuple[Array, State]:
        """Choose one action for each environment.

        Args:
            obs: ``(batch, *obs_shape)``, as the environment gives it.
            state: from ``initial_state`` or the call before.
            episode_starts: ``(batch,)`` bool, True where ``obs`` is the first of its episode.
            key: draw the actions with this key; None takes the most likely ones.
            action_mask: ``(batch, K)``, true where an action is allowed (see ``MaskedObservation``); a policy
                that was trained with masks must be given one.

        Returns:
            The actions, in the environment's units and clipped to its bounds, and the next state.

        Raises:
            ValueError: ``obs``, ``episode_starts`` or ``action_mask`` has the wrong shape, or a mask is
                missing.

        """
        obs, episode_starts = jnp.asarray(obs), jnp.asarray(episode_starts)
        batch = obs.shape[0] if obs.ndim else 0
        if obs.shape != (batch, *self.config.obs_shape):
            raise ValueError(f"obs: got shape {obs.shape}, expected (batch, *{self.config.obs_shape})")
        if episode_starts.shape != (batch,):
            raise ValueError(f"episode_starts: got shape {episode_starts.shape}, expected {(batch,)}")
        if action_mask is not None:
            action_mask = jnp.asarray(action_mask).astype(bool)
        elif self.config.action_mask:
            raise ValueError(
                f"action_mask: got None, expected ({batch}, {self.config.action.num_inputs}) bool: this "
                "policy was trained with masks of the allowed actions"
            )
        inputs, _, state = self.evaluate(obs, state, episode_starts)
        action = choose_action(self.config.action, mask_inputs(self.config.action, inputs, action_mask), key)
        return action, state

    def evaluate(self, obs: Array, state: State, episode_starts: Array) -> tuple[Array, Array, State]:
        """Return the distribution's inputs ``(batch, K)``, the values ``(batch,)`` and the next state.

        No mask is applied.
        """
        refuse_forked_process("Policy.act")
        state, inputs, value = self._programs.step(
            self._prepared, self._normalisation, state, obs, episode_starts.astype(bool)
        )
        return inputs, value, state

    @cached_property
    def _prepared(self) -> dict[str, Any]:
        prepared: dict[str, Any] = self._programs.prepare(self.params)
        return prepared

    @cached_property
    def _programs(self) -> "_Programs":
        return _Programs.of(self.config)

    @cached_property
    def _normalisation(self) -> tuple[Any, ...] | None:
        statistics = self.obs_statistics
        if statistics is None:
            return None
        return statistics.mean, statistics.variance, statistics.epsilon, statistics.clip


class _Programs(Shared):
    """A network's functions, compiled, shared by the policies of one architecture."""

    def __init__(self, config: ActorCriticConfig) -> None:
        super().__init__(config)
        net = ActorCritic(config)

        def step(
            prepared: dict[str, Any],
            normalisation: tuple[Array, Array, Array, Array] | None,
            state: State,
            obs: Array,
            episode_starts: Array,
        ) -> tuple[State, Array, Array]:
            if normalisation is not None:
                obs = normalize(obs.astype(jnp.float32), *normalisation)
            return net.step(prepared, state, obs, episode_starts)

        self.prepare = jax.jit(net.prepare)
        self.step = jax.jit(step)


def _read_only(leaf: Any) -> Any:
    """Return a leaf that nothing can write to: what was prepared of it stays true."""
    if isinstance(leaf, jax.Array):
        return leaf
    array = np.array(leaf)
    array.flags.writeable = False
    return array


@partial(jax.jit, static_argnums=0)
def choose_action(action: ActionSpec, inputs: Array, key: Array | None = None) -> Array:
    """Return actions in the environment's units and clipped to its bounds: drawn with a key, else the modes.

    Args:
        action: the action space.
        inputs: the distribution's, ``(batch, K)``.
        key: what to draw with.

    """
    dist = distribution(action, inputs)
    chosen = dist.mode() if key is None else dist.sample(key)
    if not isinstance(action, Box):
        return chosen
    return jnp.clip(chosen, jnp.array(action.low, chosen.dtype), jnp.array(action.high, chosen.dtype))


def save_policy(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write a policy to one file, whole or not at all.

    Args:
        path: the file; one that is there already is replaced.
        policy: what to write.

    Raises:
        ValueError: the parameters are not those of the architecture, or not finite.
        OSError: the file cannot be written; what was there before is whole.

    """
    tensors = {f"params/{name}": np.asarray(leaf) for name, leaf in _flatten(policy.params).items()}
    document: dict[str, Any] = {
        "format": FORMAT,
        "network": _network_to_json(policy.config),
        "observation_statistics": None,
        "env_id": policy.env_id,
        "env_kwargs": dict(policy.env_kwargs),
        "training": dict(policy.training),
    }
    statistics = policy.obs_statistics
    if statistics is not None:
        tensors["observations/mean"] = np.asarray(statistics.mean, np.float32)
        tensors["observations/variance"] = np.asarray(statistics.variance, np.float32)
        document["observation_statistics"] = {
            name: float(getattr(statistics, name)) for name in ("epsilon", "clip", "samples")
        }
    problem = _mismatch(tensors, _expected(policy.config, statistics is not None))
    if problem:
        raise ValueError(f"policy: {problem}")
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in sorted(tensors.items())}
    metadata = {"policy": _canonical(document), "sha256": ""}
    header, body = _split(safetensors.numpy.save(tensors, metadata))
    metadata["sha256"] = _digest(header, body)
    write_whole(path, safetensors.numpy.save(tensors, metadata))


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy that ``save_policy`` wrote.

    Raises:
        OSError: the file cannot be read.
        PolicyFileError: the file is damaged, was tampered with, or holds no policy of this format.

    """
    content = Path(path).read_bytes()
    try:
        return _parse(content)
    except PolicyFileError as error:
        raise PolicyFileError(f"{os.fspath(path)}: {error}") from None


def as_policy(weights: Policy | str | os.PathLike[str]) -> Policy:
    """Return what a ``weights`` argument means: the policy itself, or the one in the file of that name.

    Raises:
        ValueError: the file cannot be read, or holds no policy; one line that names it.

    """
    if isinstance(weights, Policy):
        return weights
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"weights: got {weights!r}, expected a policy or the name of its file")
    try:
        return load_policy(weights)
    except OSError as error:
        raise ValueError(f"weights: {os.fspath(weights)}: {error.strerror or error}") from None


def require_same_network(found: ActorCriticConfig, wanted: ActorCriticConfig) -> None:
    """Refuse weights of another network.

    Args:
        found: the weights' architecture.
        wanted: the one that they are to be loaded into.

    Raises:
        ValueError: one line with the first thing that differs, both values, and what to do.

    """
    for name, have in _settings(found).items():
        want = _settings(wanted).get(name)
        if have != want:
            raise ValueError(
                f"weights: their network has {name} {have!r}, expected {want!r}; say nothing about the "
                "network to take it from the weights, and use them where observations and actions are alike"
            )


def _settings(config: ActorCriticConfig) -> dict[str, Any]:
    memory = {f"memory_config[{name!r}]": value for name, value in dict(config.memory_config).items()}
    left_out = {"memory_config", "action_mask"}  # masks are no weights
    if not config.is_image:
        left_out.add("cnn_features")
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in left_out} | memory


def _parse(content: bytes) -> Policy:
    header, body = _split(content)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("policy"), str):
        raise PolicyFileError("no policy in its metadata, expected a file written by save_policy")
    if metadata.get("sha256") != _digest(header, body):
        raise PolicyFileError("its contents do not match its SHA-256 digest: damaged or tampered with")
    document = _parse_json(metadata["policy"].encode())
    if document.get("format") not in (FORMAT, _FORMAT_1):
        raise PolicyFileError(f"format {document.get('format')!r}, expected {FORMAT!r}")
    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise PolicyFileError(f"not a readable safetensors file: {_first_line(error)}") from None
    try:
        config = _network_from_json(document["network"], most_layers=len(tensors))
        statistics = _statistics(document["observation_statistics"], tensors)
        expected = _expected(config, statistics is not None)
        env_id, env_kwargs, training = document["env_id"], document["env_kwargs"], document["training"]
        if document["format"] == _FORMAT_1:
            tensors = from_format_1(tensors, expected)
    except Exception as error:  # a hostile description can make anything go wrong in there
        raise PolicyFileError(f"its description is not valid: {_first_line(error)}") from None
    problem = _mismatch(tensors, expected)
    if problem:
        raise PolicyFileError(problem)
    if not (isinstance(env_id, str | None) and isinstance(env_kwargs, dict) and isinstance(training, dict)):
        raise PolicyFileError("its description is not valid: env_id, env_kwargs or training")
    named = {name.removeprefix("params/"): tensor for name, tensor in tensors.items()}
    params = _unflatten(named, ActorCritic(config).param_shapes())
    return Policy(config, params, statistics, env_id, env_kwargs, training)


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Cut a safetensors file into its JSON header and its tensor bytes."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < _LENGTH_BYTES or length > min(len(content) - _LENGTH_BYTES, _LARGEST_HEADER):
        raise PolicyFileError("not a safetensors file, or cut short")
    end = _LENGTH_BYTES + length
    return _parse_json(content[_LENGTH_BYTES:end]), content[end:]


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyFileError(f"its header is not JSON: {_first_line(error)}") from None
    if not isinstance(value, dict):
        raise PolicyFileError("its header is not a JSON object")
    return value


def _digest(header: Mapping[str, Any], body: bytes) -> str:
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "sha256"}
    canonical = _canonical({**header, "__metadata__": metadata})
    return hashlib.sha256(canonical.encode() + b"\0" + body).hexdigest()


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _network_to_json(config: ActorCriticConfig) -> dict[str, Any]:
    network = {f.name: getattr(config, f.name) for f in fields(config)}
    action = {f.name: getattr(config.action, f.name) for f in fields(config.action)}
    if isinstance(config.action, Box):  # JSON has no infinities
        action = {name: [x if math.isfinite(x) else None for x in bounds] for name, bounds in action.items()}
    network["action"] = {"type": type(config.action).__name__, **action}
    network["memory_config"] = dict(config.memory_config)
    if not config.action_mask:  # the file of who has no masks is that of before there were any
        del network["action_mask"]
    return network


def _network_from_json(network: Mapping[str, Any], most_layers: int) -> ActorCriticConfig:
    for name in ("encoder", "actor_torso", "critic_torso"):
        if len(network[name]) > most_layers:
            raise ValueError(f"{name}: {len(network[name])} layers in a file of {most_layers} tensors")
    action = dict(network["action"])
    kind = _ACTIONS[action.pop("type")]
    if kind is Box:
        low = tuple(-math.inf if x is None else x for x in action["low"])
        action = {"low": low, "high": tuple(math.inf if x is None else x for x in action["high"])}
    return ActorCriticConfig(**{**network, "action": kind(**action)})


def _statistics(
    document: Mapping[str, Any] | None, tensors: dict[str, np.ndarray[Any, Any]]
) -> ObservationStatistics | None:
    if document is None:
        return None
    epsilon, clip, samples = (float(document[name]) for name in ("epsilon", "clip", "samples"))
    if not (0 <= epsilon < math.inf and clip > 0 and 0 < samples < math.inf):
        raise ValueError(f"observation statistics: got epsilon {epsilon}, clip {clip} and {samples} samples")
    return ObservationStatistics(
        tensors["observations/mean"], tensors["observations/variance"], epsilon, clip, samples
    )


def _expected(config: ActorCriticConfig, has_statistics: bool) -> dict[str, tuple[int, ...]]:
    shapes = _flatten(ActorCritic(config).param_shapes())
    expected = {f"params/{name}": tuple(leaf.shape) for name, leaf in shapes.items()}
    if has_statistics:
        expected |= dict.fromkeys(("observations/mean", "observations/variance"), config.obs_shape)
    return expected


def _mismatch(
    tensors: Mapping[str, np.ndarray[Any, Any]], expected: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Say what is wrong with the tensors of an architecture, None if nothing is."""
    for name in sorted({*tensors, *expected}):
        if name not in tensors:
            return f"tensor {name} is missing"
        if name not in expected:
            return f"tensor {name} is not one of the architecture's"
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.shape != expected[name]:
            return f"tensor {name}: got {tensor.dtype} {tensor.shape}, expected float32 {expected[name]}"
        if not np.isfinite(tensor).all():
            return f"tensor {name}: holds a number that is not finite"
    return None


def _flatten(tree: Params) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _unflatten(leaves_by_name: Mapping[str, Any], shapes: Params) -> Params:
    leaves = [jnp.asarray(leaves_by_name[name]) for name in _flatten(shapes)]
    params: Params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return params


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under another name and rename it: it is there whole, or as it was before."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:  # anybody may read it, as any new file; not mkstemp's
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
