"""Compare learning rates for S5 with Ray Tune and print the table.

python examples/rllib_tune.py
"""

import ray
from ray import tune

from s5_adapters.rllib import S5PPOConfig


def main() -> None:
    """Run two trials of ten iterations each, one after the other."""
    ray.init(num_cpus=1, include_dashboard=False, address="local", log_to_driver=False)
    network = {"d_model": 64, "d_state": 64, "encoder": [64], "actor_torso": [64], "critic_torso": [64]}
    config = (
        S5PPOConfig()
        .environment("RepeatPreviousEasy")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .rl_module(model_config=network | {"max_seq_len": 52})
        .training(gamma=0.0, entropy_coeff=0.0, lr=tune.grid_search([2e-3, 2e-4]))
    )
    stop = tune.RunConfig(stop={"training_iteration": 10}, verbose=0)
    results = tune.Tuner("PPO", param_space=config, run_config=stop).fit()
    table = results.get_dataframe()
    print(
        table[["config/lr", "training_iteration", "env_runners/episode_return_mean"]].to_string(index=False)
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
