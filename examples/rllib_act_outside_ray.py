"""Act with the module of an RLlib checkpoint, without starting Ray: the state is fed back by hand.

python examples/rllib_act_outside_ray.py runs/rllib [env id]
"""

import sys

import gymnasium as gym
import torch
from ray.rllib.core.rl_module.rl_module import RLModule

import s5_envs.gymnasium  # noqa: F401  (makes the ids known to gymnasium)

checkpoint = sys.argv[1]
env_id = sys.argv[2] if len(sys.argv) > 2 else "RepeatPreviousEasy"

module = RLModule.from_checkpoint(f"{checkpoint}/learner_group/learner/rl_module/default_policy")
env = gym.make(f"s5_envs/{env_id}-v0")
obs, _ = env.reset(seed=0)
state = {name: torch.from_numpy(leaf)[None] for name, leaf in module.get_initial_state().items()}
done, total = False, 0.0
while not done:
    outputs = module.forward_inference({"obs": torch.from_numpy(obs)[None, None], "state_in": state})
    state, action = outputs["state_out"], int(outputs["action_dist_inputs"].argmax())
    obs, reward, terminated, truncated, _ = env.step(action)
    done, total = terminated or truncated, total + reward
print(f"return {total:.3f}")
