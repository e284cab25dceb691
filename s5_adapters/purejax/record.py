"""One episode of a trained policy as pictures."""

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core.network.distributions import distribution
from s5_adapters.purejax.normalization import normalize
from s5_adapters.purejax.problem import Pytree
from s5_adapters.purejax.restore import RestoredPolicy

MAX_FRAMES = 1000


def record_episode(
    policy: RestoredPolicy, *, seed: int = 0, deterministic: bool = False
) -> tuple[list[np.ndarray], float]:
    """Play one episode and draw every state that the policy acts in, ``MAX_FRAMES`` at most.

    Returns:
        Frames ``(height, width, 3)`` uint8, and the episode's return (so far, if it was cut).
    """
    from s5_envs.rendering import describe

    problem = policy.problem
    env = getattr(problem.env, "unwrapped", problem.env)
    key, reset_key = jax.random.split(jax.random.key(seed))
    obs, env_state = problem.reset(reset_key, 1)
    memory_state, starts = problem.net.initial_state(1), jnp.ones(1, bool)
    prepared = jax.jit(problem.net.prepare)(policy.params)
    step_env = jax.jit(problem.step)

    @jax.jit
    def act(
        prepared: Pytree, memory_state: Pytree, obs: Pytree, starts: jax.Array, key: jax.Array
    ) -> tuple[Pytree, jax.Array]:
        memory_starts = problem.memory_starts(starts)
        memory_state, dist_inputs, _ = problem.net.step(prepared, memory_state, obs, memory_starts)
        dist = distribution(problem.action, dist_inputs)
        return memory_state, dist.mode() if deterministic else dist.sample(key)

    frames: list[np.ndarray] = []
    episode_return = 0.0
    while len(frames) < MAX_FRAMES and (not frames or not starts[0]):
        state = jax.tree.map(lambda x: x[0], env_state)
        state = problem.env.unwrapped_state(state) if hasattr(problem.env, "unwrapped_state") else state
        frames.append(describe(env, state).to_image())
        key, step_key = jax.random.split(key)
        inputs = obs if policy.obs_stats is None else normalize(policy.obs_stats, obs)
        memory_state, action = act(prepared, memory_state, inputs, starts, step_key)
        step = step_env(jax.random.split(jax.random.fold_in(step_key, 1), 1), env_state, action)
        obs, env_state, starts = step.obs, step.state, step.terminated | step.truncated
        episode_return += float(step.reward[0])
    return frames, episode_return
