"""A cluster of two nodes, both of them on this machine."""

from __future__ import annotations

import numpy as np
import pytest
import ray
from _rllib import logits_of, process_of, quiet_ray, remote_runners, runner_logits, tiny_config
from ray.cluster_utils import Cluster

# Each starts a Ray cluster of its own, and they take minutes together.
pytestmark = [*quiet_ray, pytest.mark.slow]


def test_a_cluster_of_two_nodes_trains() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        algo = tiny_config().env_runners(num_env_runners=2, num_envs_per_env_runner=2).build_algo()
        try:
            nodes = {process["node"] for process in remote_runners(algo, process_of)}
            assert len(nodes) == 2
            before = logits_of(algo.get_module())
            algo.train()
            learned = logits_of(algo.get_module())
            assert not np.array_equal(learned, before)
            assert all(np.array_equal(logits, learned) for logits in remote_runners(algo, runner_logits))
        finally:
            algo.stop()
    finally:
        ray.shutdown()
        cluster.shutdown()
