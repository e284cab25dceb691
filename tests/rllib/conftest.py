"""What RLlib's tests share: torch on one thread, and warnings of Ray's own that no caller can avoid."""

import pytest
import torch

torch.set_num_threads(1)

RAY = [
    # JAX warns at every os.fork; Ray starts its processes by fork and exec, where nothing of JAX is used.
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
    # Each runner that is built registers its environment with gymnasium anew, under the same name.
    r"ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for warning in RAY:
            item.add_marker(pytest.mark.filterwarnings(warning))
