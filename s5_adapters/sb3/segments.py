"""Rollouts kept as segments of one length, episode ends inside: no cutting, no ragged padding, one shape."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer, RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.type_aliases import (
    RecurrentDictRolloutBufferSamples,
    RecurrentRolloutBufferSamples,
    RNNStates,
)
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

__all__ = ["SegmentDictRolloutBuffer", "SegmentRolloutBuffer", "minibatches", "plan_segments"]

SHORTEST = 8
"""No segment is shorter than this, unless the rollout is: a minibatch of single steps would learn no
memory.
"""
TOLERANCE = 0.125
"""How much padding and deviation from the batch size together a plan may have before shorter segments are
tried.
"""

Samples = RecurrentRolloutBufferSamples | RecurrentDictRolloutBufferSamples


def plan_segments(n_steps: int, batch_size: int) -> int:
    """Return the segments' length: the longest up to `batch_size` that wastes little.

    A rollout of `n_steps` is cut into m segments of up to `ceil(n_steps / m)` steps, shorter ones filled up
    with masked rows; a minibatch holds as many segments as come nearest to `batch_size` rows. The smallest m
    is taken for which masked rows and the distance from `batch_size` stay within an eighth, else the best
    there is.
    """
    shortest = min(n_steps, max(SHORTEST, min(batch_size, 2 * SHORTEST)))
    plans = []
    most = max(1, n_steps // shortest)
    for m in range(min(most, -(-n_steps // batch_size)), most + 1):
        length = -(-n_steps // m)
        padding = 1 - n_steps / (length * -(-n_steps // length))
        deviation = abs(rows_per_batch(length, batch_size) - batch_size) / batch_size
        if padding + deviation <= TOLERANCE:
            return length
        plans.append((padding + deviation, -length))
    return -min(plans)[1]


def rows_per_batch(length: int, batch_size: int) -> int:
    """Return the rows of a minibatch of whole segments that comes nearest to `batch_size`."""
    return length * max(1, round(batch_size / length))


def segment_starts(n_steps: int, length: int) -> np.ndarray:
    """Return the first steps of a rollout's segments, and its end: as few of up to `length` steps as hold it,
    of lengths that differ by one at most, so that none is a remainder of a step or two.
    """
    count = -(-n_steps // length)
    return np.arange(count + 1) * n_steps // count


def minibatches(n_steps: int, n_envs: int, length: int, batch_size: int) -> tuple[int, int]:
    """Count minibatches, and segments in each; some hold one segment less and are filled up, masked.

    As many as bring each nearest to `batch_size` rows, fewer where a minibatch would have a single row: its
    advantage, divided by the standard deviation of one value, is NaN. A rollout of a single row stays one.
    """
    per_env = -(-n_steps // length)
    count = per_env * n_envs
    wanted = -(-count // (rows_per_batch(length, batch_size) // length))
    at_least = 1 if n_steps // per_env > 1 else 2
    number = max(1, min(wanted, count // at_least))
    return number, -(-count // number)


if TYPE_CHECKING:
    _Base = RecurrentRolloutBuffer  # what follows it among the bases
else:
    _Base = RolloutBuffer


class _Segments(_Base):
    """The base of both buffers. It goes before sb3-contrib's recurrent buffer among the bases.

    Attributes:
        segment_length: steps in a segment.
        segments: segments of one environment in a rollout.
    """

    segment_length: int
    segments: int
    samples: type[Samples]

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        hidden_state_shape: tuple[int, int, int, int],
        device: th.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
        segment_length: int | None = None,
    ) -> None:
        """Make a buffer like sb3-contrib's, with the segments' length (the whole rollout by default).

        Args:
            buffer_size: steps of a rollout, per environment.
            observation_space: what is observed.
            action_space: what is done.
            hidden_state_shape: `(buffer_size, n_layers, n_envs, width)`; states are kept at segment starts
            only.
            device: where samples go.
            gae_lambda: lambda of generalised advantage estimation.
            gamma: discount.
            n_envs: environments.
            segment_length: most steps in a segment; shorter ones are filled with masked rows.
        """
        length = buffer_size if segment_length is None else segment_length
        if not 1 <= length <= buffer_size:
            raise ValueError(f"segment_length is {length}, expected 1 to {buffer_size} (n_steps)")
        self._starts = segment_starts(buffer_size, length)
        self.segment_length, self.segments = length, len(self._starts) - 1
        shape = (self.segments, *hidden_state_shape[1:])
        super().__init__(
            buffer_size, observation_space, action_space, shape, device, gae_lambda, gamma, n_envs=n_envs
        )

    # As sb3-contrib's own, which is not as SB3's.
    def add(  # type: ignore[override]
        self, *args: Any, lstm_states: RNNStates, **kwargs: Any
    ) -> None:
        """Store one step, and the states that led to it where a segment starts."""
        segment = np.searchsorted(self._starts, self.pos)
        if self._starts[segment] == self.pos:
            self.hidden_states_pi[segment], self.cell_states_pi[segment] = _arrays(lstm_states.pi)
            self.hidden_states_vf[segment], self.cell_states_vf[segment] = _arrays(lstm_states.vf)
        base = DictRolloutBuffer if isinstance(self.observation_space, spaces.Dict) else RolloutBuffer
        base.add(self, *args, **kwargs)  # type: ignore[arg-type]  # one of the two is a base

    # Dictionaries' samples are another class.
    def get(  # type: ignore[override]
        self, batch_size: int | None = None
    ) -> Generator[Samples, None, None]:
        """Yield minibatches of whole segments in random order, all of one shape.

        Args:
            batch_size: rows wanted; the nearest number of whole segments is taken. None for everything at
            once.

        Yields:
            sb3-contrib's samples, rows flat with each segment's steps together. Rows with `mask` 0 repeat
            others: past a segment's end, and where a minibatch is a segment short. Every step of the rollout
            appears exactly once with `mask` 1.
        """
        assert self.full, "the rollout buffer must be full before sampling from it"
        count = self.segments * self.n_envs
        wanted = count * self.segment_length if batch_size is None else batch_size
        number, per_batch = minibatches(self.buffer_size, self.n_envs, self.segment_length, wanted)
        order = np.random.permutation(count)
        for chosen in np.array_split(order, number):
            yield self._samples(np.concatenate([chosen, order[: per_batch - len(chosen)]]), len(chosen))

    def _steps(self, segment: np.ndarray) -> np.ndarray:
        steps: np.ndarray = self._starts[segment][:, None] + np.arange(self.segment_length)
        return steps

    def _rows(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return step and environment of each row of the chosen segments, flat."""
        env, segment = np.divmod(chosen, self.segments)
        steps = np.minimum(self._steps(segment), self.buffer_size - 1)
        return steps.reshape(-1), np.repeat(env, self.segment_length)

    def _samples(self, chosen: np.ndarray, real: int) -> Samples:
        env, segment = np.divmod(chosen, self.segments)
        steps = self._steps(segment)
        mask = (steps < self._starts[segment + 1][:, None]) & (np.arange(len(chosen)) < real)[:, None]
        rows = self._rows(chosen)

        def flat(values: np.ndarray) -> th.Tensor:
            return self.to_torch(values[rows])

        def state(values: np.ndarray) -> th.Tensor:
            return self.to_torch(np.ascontiguousarray(values[segment, :, env].swapaxes(0, 1)))

        observations = self.observations
        make: Callable[..., Samples] = self.samples
        return make(
            observations=(
                {key: flat(value) for key, value in observations.items()}
                if isinstance(observations, dict)
                else flat(observations)
            ),
            actions=flat(self.actions),
            old_values=flat(self.values),
            old_log_prob=flat(self.log_probs),
            advantages=flat(self.advantages),
            returns=flat(self.returns),
            lstm_states=RNNStates(
                (state(self.hidden_states_pi), state(self.cell_states_pi)),
                (state(self.hidden_states_vf), state(self.cell_states_vf)),
            ),
            episode_starts=flat(self.episode_starts),
            mask=self.to_torch(mask.reshape(-1).astype(np.float32)),
        )


class SegmentRolloutBuffer(_Segments, RecurrentRolloutBuffer):
    """Rollouts of array observations in segments."""

    samples = RecurrentRolloutBufferSamples


# The two recurrent buffers of sb3-contrib say different things.
class SegmentDictRolloutBuffer(_Segments, RecurrentDictRolloutBuffer):  # type: ignore[misc]
    """Rollouts of dictionary observations in segments."""

    samples = RecurrentDictRolloutBufferSamples


def _arrays(states: tuple[th.Tensor, ...]) -> list[np.ndarray]:
    return [part.cpu().numpy() for part in states]
