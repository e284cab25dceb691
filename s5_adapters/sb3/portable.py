"""Between `S5Policy` and the portable policy that every ecosystem reads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.save_util import load_from_pkl, load_from_zip_file
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from s5_adapters.core import ActorCriticConfig, Box
from s5_adapters.core.files.weights import ObservationStatistics, Policy, require_same_network
from s5_adapters.core.network.spaces import action_spec
from s5_adapters.sb3.unchanged import head_parameters
from s5_adapters.torch_bridge import Normalizer

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = [
    "check_weights",
    "load_weights",
    "policy_from_zip",
    "portable_config",
    "statistics_module",
    "to_portable",
]


def portable_config(policy: S5Policy) -> ActorCriticConfig:
    """Return the architecture of the whole network, heads included.

    Raises:
        ValueError: a part of it that no portable policy holds; one line that names it.
    """
    from s5_adapters.sb3.maskable import MaskableCnnS5Policy, MaskableMultiInputS5Policy, MaskableS5Policy
    from s5_adapters.sb3.policies import CnnS5Policy, ImageInput, MultiInputS5Policy, S5Policy

    maskable = (MaskableS5Policy, MaskableCnnS5Policy, MaskableMultiInputS5Policy)

    extractor = policy.features_extractor
    space = policy.observation_space
    if isinstance(space, spaces.Dict):
        raise _refused("Dict observations")
    if type(policy) not in (S5Policy, CnnS5Policy, MultiInputS5Policy, *maskable):
        raise _refused(f"the policy class {type(policy).__name__}")
    if type(extractor) not in (FlattenExtractor, ImageInput):
        raise _refused(f"the features extractor {type(extractor).__name__}")
    if not isinstance(space, spaces.Box):
        raise _refused(f"observations of {space}")
    if policy.use_sde:
        raise _refused("gSDE (use_sde=True)")
    if policy.has_torch_torsos:
        raise _refused(f"the activation {policy.activation_fn.__name__}")
    if policy.has_two_encoders:
        raise _refused("the critic's own encoder (share_features_extractor=False)")
    is_bytes = space.dtype == np.uint8 and len(space.shape) == 3
    if is_bytes and isinstance(extractor, FlattenExtractor):
        raise _refused("an image without a CNN (FlattenExtractor)")
    if is_bytes and not policy.normalize_images:
        raise _refused("images of unscaled bytes (normalize_images=False)")
    try:
        action = action_spec(policy.action_space)
    except ValueError:
        raise _refused(f"actions of {policy.action_space}") from None
    return policy.trunk_config.replace(action=action, action_mask=type(policy) in maskable)


def check_weights(policy: S5Policy, weights: Policy) -> None:
    """Refuse weights that do not fit; it needs the architecture alone, before any parameter is made.

    Raises:
        ValueError: another network or other spaces, or a part of this one that is not portable; one line.
    """
    require_same_network(weights.config, portable_config(policy))


def to_portable(policy: S5Policy, statistics: ObservationStatistics | None = None) -> Policy:
    """Return the network with its weights, copied.

    Args:
        policy: what to make portable.
        statistics: how a `VecNormalize` in front of it normalised observations.

    Raises:
        ValueError: a part that is not portable, or statistics in front of a policy that has its own.
    """
    config = portable_config(policy)
    if not head_parameters(policy):
        raise _refused("action_net, value_net, mlp_extractor or action_dist, changed or hooked")
    if policy.weights is not None and policy.weights.obs_statistics is not None:
        if statistics is not None:
            raise ValueError("vecnormalize: this policy normalises observations itself, by its weights'")
        statistics = policy.weights.obs_statistics
    elif statistics is not None:
        statistics = _portable_statistics(statistics, config.obs_shape)
    heads: dict[str, Any] = {"actor": _dense(policy.action_net), "critic": _dense(policy.value_net)}
    if isinstance(config.action, Box):
        heads["log_std"] = _numpy(policy.log_std)
    return Policy(config, {"trunk": policy.trunk.snapshot(), "heads": heads}, statistics)


def load_weights(policy: S5Policy, weights: Policy) -> None:
    """Copy a portable policy's weights into an `S5Policy` that they fit (see `check_weights`)."""
    policy.trunk.load_tree(weights.params["trunk"])
    heads = weights.params["heads"]
    with th.no_grad():
        for name, head in (("actor", policy.action_net), ("critic", policy.value_net)):
            head.weight.copy_(_tensor(heads[name]["kernel"]).T)
            head.bias.copy_(_tensor(heads[name]["bias"]))
        if "log_std" in heads:
            policy.log_std.copy_(_tensor(heads["log_std"]))


def policy_from_zip(path: Path, vecnormalize: Path | None = None) -> Policy:
    """Return the portable policy of a model that SB3's `save` wrote.

    The file is read by SB3's own loader, which unpickles: it can run code of the file's author.

    Args:
        path: the `.zip`.
        vecnormalize: what `VecNormalize.save` wrote beside it, unpickled too.

    Raises:
        ValueError: a file that cannot be read, another kind of model, or a part that is not portable; one
            line that names it.
    """
    from s5_adapters.sb3.policies import S5Policy

    try:
        data, parameters, _ = load_from_zip_file(path, device="cpu")
    except Exception as error:  # unpickling can fail in any way
        raise ValueError(
            f"{path}: not a readable model of Stable-Baselines3's: {type(error).__name__}"
        ) from error
    policy_class = (data or {}).get("policy_class")
    if not (isinstance(policy_class, type) and issubclass(policy_class, S5Policy)):
        found = getattr(policy_class, "__name__", policy_class)
        raise _refused(f"the policy class {found} (expected S5Policy or CnnS5Policy)")
    assert data is not None
    policy = policy_class(
        data["observation_space"],
        data["action_space"],
        lambda _: 0.0,
        use_sde=data["use_sde"],
        **data["policy_kwargs"],
    )
    policy.load_state_dict(parameters["policy"])  # type: ignore[arg-type]  # SB3's TensorDict nests
    statistics = None if vecnormalize is None else read_vecnormalize(vecnormalize)
    portable = to_portable(policy, statistics)
    training = {"trainer": "stable_baselines3", "steps": data.get("num_timesteps", 0)}
    return replace(portable, training=training)


def read_vecnormalize(path: Path) -> ObservationStatistics | None:
    """Read observation statistics from a file of `VecNormalize.save`; None where it leaves them alone.

    Raises:
        ValueError: a file that cannot be unpickled, another object, or statistics of Dict observations.
        OSError: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            wrapper = load_from_pkl(file)
    except OSError:
        raise
    except Exception as error:  # unpickling can fail in any way
        raise ValueError(f"{path}: not a file of VecNormalize's: {type(error).__name__}") from error
    if not isinstance(wrapper, VecNormalize):
        raise ValueError(f"{path}: holds a {type(wrapper).__name__}, expected a VecNormalize")
    if not wrapper.norm_obs:
        return None
    rms = wrapper.obs_rms
    if isinstance(rms, dict):
        raise _refused("Dict observations")
    return ObservationStatistics(rms.mean, rms.var, wrapper.epsilon, wrapper.clip_obs, float(rms.count))


def statistics_module(statistics: ObservationStatistics, shape: tuple[int, ...]) -> Normalizer:
    """Return a policy's statistics in the shape of SB3's observations: images with channels first."""
    mean, variance = (
        (np.moveaxis(x, -1, 0) if x.ndim == 3 else x).reshape(shape)
        for x in (statistics.mean, statistics.variance)
    )
    return Normalizer(mean, variance, statistics.epsilon, statistics.clip)


def _portable_statistics(
    statistics: ObservationStatistics, obs_shape: tuple[int, ...]
) -> ObservationStatistics:
    """Return the statistics in a portable policy's shape: flat, or an image with channels last."""
    found = np.shape(statistics.mean)
    channels_first = len(obs_shape) == 3 and found == (obs_shape[2], *obs_shape[:2])
    fits = channels_first or found == obs_shape or (len(obs_shape) == 1 and math.prod(found) == obs_shape[0])
    if not fits:
        raise ValueError(f"vecnormalize: its observations have shape {found}, expected {obs_shape}")
    mean, variance = (
        (np.moveaxis(x, 0, -1) if channels_first else np.asarray(x)).reshape(obs_shape).astype(np.float32)
        for x in (statistics.mean, statistics.variance)
    )
    return replace(statistics, mean=mean, variance=variance)


def _refused(part: str) -> ValueError:
    return ValueError(f"not portable: {part}; docs/weights.md says what is")


def _dense(layer: nn.Linear) -> dict[str, np.ndarray]:
    return {"kernel": np.ascontiguousarray(_numpy(layer.weight).T), "bias": _numpy(layer.bias)}


def _numpy(tensor: th.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _tensor(array: Any) -> th.Tensor:
    return th.from_numpy(np.array(array))
