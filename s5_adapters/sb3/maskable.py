"""Masks of allowed actions together with memory: `S5MaskableRecurrentPPO` and its policies.

Two libraries' interfaces meet here: masks come from the environment's `action_masks()` and go into `predict`
as in sb3-contrib's `MaskablePPO`, everything else is `S5RecurrentPPO`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv

from s5_adapters.core.network.masks import MaskedObservation, split_mask
from s5_adapters.core.network.spaces import action_spec
from s5_adapters.sb3.masked import masked_distribution
from s5_adapters.sb3.policies import CnnS5Policy, MultiInputS5Policy, S5Policy, States
from s5_adapters.sb3.ppo import S5RecurrentPPO
from s5_adapters.sb3.segments import Samples, SegmentDictRolloutBuffer, SegmentRolloutBuffer

__all__ = [
    "MaskableCnnS5Policy",
    "MaskableMultiInputS5Policy",
    "MaskableS5Policy",
    "MaskableSegmentDictRolloutBuffer",
    "MaskableSegmentRolloutBuffer",
    "S5MaskableRecurrentPPO",
]


class MaskableS5Policy(S5Policy):
    """`S5Policy` that takes masks of allowed actions, with the names of sb3-contrib's maskable policies.

    `action_masks` is a boolean array or tensor `(batch, K)`, true where an action is allowed, K being the
    number of a Discrete's actions, of all of a MultiDiscrete's choices, or twice a MultiBinary's bits; None
    allows everything. Forbidden actions have probability 0 and no part in the entropy.

    Raises:
        ValueError: actions of a Box.
    """

    _mask_source: Callable[[], np.ndarray] | None = None

    def _build(self, lr_schedule: Schedule) -> None:
        """Build everything, with a distribution that can be masked."""
        super()._build(lr_schedule)
        self.action_dist: Any = masked_distribution(self.action_dist)

    @contextmanager
    def masked_by(self, source: Callable[[], np.ndarray] | None) -> Iterator[None]:
        """Within the context ask a function for the masks of each step that `forward` takes."""
        self._mask_source = source
        try:
            yield
        finally:
            self._mask_source = None

    @contextmanager
    def _allowing(self, action_masks: Any) -> Iterator[None]:
        """Within the context allow what the masks do; None leaves everything as it is."""
        if action_masks is None:
            yield
            return
        width = action_spec(self.action_space).num_inputs
        given = action_masks if isinstance(action_masks, th.Tensor) else np.array(action_masks)
        masks = th.as_tensor(given, device=self.device).bool()
        if not masks.numel() or masks.shape[-1] != width:
            raise ValueError(
                f"action_masks: got shape {tuple(masks.shape)}, expected (batch, {width}) for "
                f"{self.action_space}"
            )
        self.action_dist.action_masks = masks.reshape(-1, width)
        try:
            yield
        finally:
            self.action_dist.action_masks = None

    def forward(  # type: ignore[override]  # sb3-contrib does too
        self,
        obs: PyTorchObs,
        lstm_states: RNNStates,
        episode_starts: th.Tensor,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RNNStates]:
        """Act and evaluate as `S5Policy` does, by the masks.

        Args:
            obs: as `S5Policy.forward`'s.
            lstm_states: likewise.
            episode_starts: likewise.
            deterministic: likewise.
            action_masks: `(batch, K)` bool, true where an action is allowed; None asks the function that
                `masked_by` named, and allows everything without one.

        Returns:
            actions `(batch, *action_shape)`, values `(batch, 1)`, log-probabilities `(batch,)`, next states.

        Raises:
            ValueError: masks of another width.
        """
        if action_masks is None and self._mask_source is not None:
            action_masks = self._mask_source()
        with self._allowing(action_masks):
            return super().forward(obs, lstm_states, episode_starts, deterministic)

    def get_distribution(  # type: ignore[override]  # sb3-contrib does too
        self, obs: PyTorchObs, lstm_states: States, episode_starts: th.Tensor, action_masks: Any = None
    ) -> tuple[Distribution, States]:
        """Return the masked distribution and the actor's next state."""
        with self._allowing(action_masks):
            return super().get_distribution(obs, lstm_states, episode_starts)

    def evaluate_actions(  # type: ignore[override]  # sb3-contrib does too
        self,
        obs: PyTorchObs | MaskedObservation,
        actions: th.Tensor,
        lstm_states: RNNStates,
        episode_starts: th.Tensor,
        action_masks: Any = None,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Return values, log-probabilities and entropies of what was done by the masks, differentiable.

        Args:
            obs: as `S5Policy.evaluate_actions`' `(n_seq * steps, *obs_shape)`, or with the masks that were
                acted by as a `MaskedObservation`.
            actions: likewise.
            lstm_states: likewise.
            episode_starts: likewise.
            action_masks: `(n_seq * steps, K)` bool, in the place of the observation's; None leaves those, and
                allows everything without them.

        Returns:
            values `(n_seq * steps, 1)`, log-probabilities and entropies `(n_seq * steps,)`.

        Raises:
            ValueError: masks of another width.
        """
        seen, own = split_mask(obs)
        with self._allowing(own if action_masks is None else action_masks):
            return super().evaluate_actions(seen, actions, lstm_states, episode_starts)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act as `S5Policy` does, by the masks of one observation or of each environment."""
        with self._allowing(action_masks):
            return super().predict(observation, state, episode_start, deterministic)


class MaskableCnnS5Policy(MaskableS5Policy, CnnS5Policy):
    """`CnnS5Policy` that takes masks."""


class MaskableMultiInputS5Policy(MaskableS5Policy, MultiInputS5Policy):
    """`MultiInputS5Policy` that takes masks."""


if TYPE_CHECKING:
    _Base = SegmentRolloutBuffer  # what follows it among the bases
else:
    _Base = object


class _MaskableSegments(_Base):
    """The base of both buffers: observations come with the masks that were acted by.

    Attributes:
        action_masks: `(buffer_size, n_envs, K)` bool.
    """

    action_masks: np.ndarray

    def reset(self) -> None:
        """Forget the rollout; everything is allowed in the next until told otherwise."""
        super().reset()  # type: ignore[no-untyped-call]  # SB3's
        width = action_spec(self.action_space).num_inputs
        self.action_masks = np.ones((self.buffer_size, self.n_envs, width), bool)

    def add_masks(self, masks: np.ndarray) -> None:
        """Store the masks, `(n_envs, K)`, of the step that `add` will store next."""
        self.action_masks[self.pos] = masks.reshape(self.action_masks.shape[1:])

    def _samples(self, chosen: np.ndarray, real: int) -> Samples:
        samples = super()._samples(chosen, real)
        masks = self.to_torch(self.action_masks[self._rows(chosen)])
        masked: Samples = samples._replace(observations=MaskedObservation(samples.observations, masks))  # type: ignore[arg-type]
        return masked


class MaskableSegmentRolloutBuffer(_MaskableSegments, SegmentRolloutBuffer):
    """Rollouts of array observations with masks."""


class MaskableSegmentDictRolloutBuffer(_MaskableSegments, SegmentDictRolloutBuffer):  # type: ignore[misc]
    """Rollouts of dictionary observations with masks."""


class S5MaskableRecurrentPPO(S5RecurrentPPO):
    """`S5RecurrentPPO` with the masks of sb3-contrib's `MaskablePPO`.

    The environment says at every step what is allowed: by a method `action_masks()`, or wrapped in
    sb3-contrib's `ActionMasker`. `JaxVecEnv` has it where observations come with an `action_mask`.

    sb3-contrib's evaluation of maskable policies, and its callback, work as with `MaskablePPO`: see
    `predict`.

    Raises:
        AssertionError: actions of a Box, as `MaskablePPO`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "S5Policy": MaskableS5Policy,
        "CnnS5Policy": MaskableCnnS5Policy,
        "MultiInputS5Policy": MaskableMultiInputS5Policy,
    }
    buffers: ClassVar[tuple[type[SegmentRolloutBuffer], type[SegmentDictRolloutBuffer]]] = (
        MaskableSegmentRolloutBuffer,
        MaskableSegmentDictRolloutBuffer,
    )
    policy: MaskableS5Policy
    _use_masking = True
    _state_before: tuple[np.ndarray, ...] | None = None
    """The state that `predict` returned last."""

    def _setup_model(self) -> None:
        if isinstance(self.action_space, spaces.Box):
            raise AssertionError(
                f"The algorithm only supports Discrete, MultiDiscrete and MultiBinary as action spaces but "
                f"{self.action_space} was provided"
            )
        super()._setup_model()
        if not isinstance(self.policy, MaskableS5Policy):
            raise ValueError(f"policy must take masks (MaskableS5Policy), got {self.policy_class.__name__}")

    def learn(self, *args: Any, use_masking: bool = True, **kwargs: Any) -> Any:
        """Learn as SB3 does.

        Args:
            *args: as `S5RecurrentPPO.learn`'s.
            use_masking: ask the environment for masks.
            **kwargs: as `S5RecurrentPPO.learn`'s.
        """
        self._use_masking = use_masking
        return super().learn(*args, **kwargs)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collect a rollout by the environment's masks.

        Raises:
            ValueError: the environment has no `action_masks`.
        """
        if not self._use_masking:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        if not is_masking_supported(env):
            raise ValueError(
                "S5MaskableRecurrentPPO: the environment has no method action_masks, expected one, or "
                "sb3_contrib.common.wrappers.ActionMasker around it (learn(use_masking=False) goes without)"
            )
        assert isinstance(rollout_buffer, _MaskableSegments)

        def masks() -> np.ndarray:
            found: np.ndarray = get_action_masks(env)
            rollout_buffer.add_masks(found)
            return found

        with self.policy.masked_by(masks):
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act as the policy does.

        Without a state in the midst of an episode, as `episode_start` tells, the state is the one returned
        last: sb3-contrib's evaluation (2.9) does not hand it back.
        """
        if state is None and episode_start is not None and not np.all(episode_start):
            before = self._state_before
            if before is not None and before[0].shape[1] == np.size(episode_start):
                state = before
        actions, self._state_before = self.policy.predict(
            observation, state, episode_start, deterministic, action_masks
        )
        return actions, self._state_before

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state_before"]
