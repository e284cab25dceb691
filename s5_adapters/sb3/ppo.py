"""`RecurrentPPO` on whole segments."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import FloatSchedule

from s5_adapters.core.files.weights import as_policy
from s5_adapters.sb3.arguments import RefusedArgument
from s5_adapters.sb3.finite import check_finite
from s5_adapters.sb3.policies import CnnS5Policy, MultiInputS5Policy, S5Policy
from s5_adapters.sb3.segments import (
    SegmentDictRolloutBuffer,
    SegmentRolloutBuffer,
    minibatches,
    plan_segments,
)
from s5_adapters.torch_bridge import settle_jax

__all__ = ["S5RecurrentPPO"]


class S5RecurrentPPO(RecurrentPPO):
    """sb3-contrib's `RecurrentPPO` with rollouts kept as segments of one length, episode ends inside.

    Same arguments, same losses; minibatches are whole segments instead of episodes cut and padded, so their
    shape never changes (two programs are compiled for training, one for acting), and states are stored at
    segment starts only. Every policy of `RecurrentPPO` runs in it.

    Args beyond those of `RecurrentPPO`:
        segment_length: steps through which gradients flow; None takes the longest that suits `n_steps` and
            `batch_size` (see `plan_segments`). `batch_size` is met by the nearest number of whole segments.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **RecurrentPPO.policy_aliases,
        **{policy.__name__: policy for policy in (S5Policy, CnnS5Policy, MultiInputS5Policy)},
    }

    buffers: ClassVar[tuple[type[SegmentRolloutBuffer], type[SegmentDictRolloutBuffer]]] = (
        SegmentRolloutBuffer,
        SegmentDictRolloutBuffer,
    )
    """For observations that are arrays, and for dictionaries."""

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        segment_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        self.segment_length = segment_length
        super().__init__(policy, env, *args, **kwargs)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Self:
        """Load a model as SB3 does."""
        settle_jax()  # weights among the policy's arguments are arrays of JAX's, which must not come first
        return super().load(*args, **kwargs)

    def _setup_model(self) -> None:
        # The parent's would allocate a state per step before anything could replace its buffer.
        if self.policy_kwargs.get("weights") is not None:  # what `save` writes then needs no other file
            self.policy_kwargs = {**self.policy_kwargs, "weights": as_policy(self.policy_kwargs["weights"])}
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        policy: Any = self.policy_class(
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            use_sde=self.use_sde,
            **self.policy_kwargs,
        ).to(self.device)
        if not isinstance(policy, RecurrentActorCriticPolicy):
            raise ValueError(f"policy must be a recurrent one, got {self.policy_class.__name__}")
        self.policy = policy
        layers, _, width = policy.lstm_hidden_state_shape

        def zeros() -> tuple[th.Tensor, th.Tensor]:
            first, second = (th.zeros(layers, self.n_envs, width, device=self.device) for _ in range(2))
            return first, second

        # sb3-contrib declares the None that it is at first.
        self._last_lstm_states = RNNStates(zeros(), zeros())  # type: ignore[assignment]
        total = self.n_steps * self.n_envs
        batch_size = total if self.batch_size is None else min(self.batch_size, total)
        if batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, expected at least 1")
        if total == 1 and self.normalize_advantage:
            raise RefusedArgument(
                "n_steps * n_envs is 1: one advantage cannot be normalised; expected at least 2 or "
                "normalize_advantage=False"
            )
        length = self.segment_length or plan_segments(self.n_steps, batch_size)
        self.rollout_buffer = self.buffers[isinstance(self.observation_space, spaces.Dict)](
            self.n_steps,
            self.observation_space,
            self.action_space,
            (self.n_steps, layers, self.n_envs, width),
            self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            segment_length=length,
        )
        if isinstance(self.policy, S5Policy):
            _, segments = minibatches(self.n_steps, self.n_envs, length, batch_size)
            self.policy.expect_segments(segments, length)
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            if isinstance(self.clip_range_vf, float | int) and self.clip_range_vf <= 0:
                raise RefusedArgument(
                    f"clip_range_vf is {self.clip_range_vf}, expected a positive number, or None for none"
                )
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def train(self) -> None:
        """Update the policy.

        Raises:
            ValueError: a parameter that is not finite afterwards.
        """
        super().train()
        check_finite(self.policy, f"after update {self._n_updates} (step {self.num_timesteps})")

    def save(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Save as SB3 does, finite parameters only; nothing is written otherwise.

        Raises:
            ValueError: a parameter that is not finite.
        """
        check_finite(self.policy, "and is not saved")
        super().save(path, *args, **kwargs)
