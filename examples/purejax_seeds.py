"""Four seeds of the jitted trainer in one program, and the mean return of each at the end.

python examples/purejax_seeds.py
"""

import jax

from s5_adapters.purejax import PPOConfig, make_train

config = PPOConfig(env_id="RepeatPreviousEasy", memory="s5", total_steps=400_000)
train = jax.jit(jax.vmap(make_train(config)))
result = train(jax.random.split(jax.random.key(0), 4))

for seed, returns in enumerate(result.metrics["episode_return"]):
    print(f"seed {seed}: mean episodic return {returns[-5:].mean():.3f} (perfect memory: 1)")
