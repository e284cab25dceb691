"""What must hold before anything is measured."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from s5_adapters.core.files.weights import Policy


def assert_same_parameters(policy: Policy, params: Any) -> None:
    """Check that a framework's parameters are a policy's, bit by bit.

    Raises:
        AssertionError: it names the first leaf that differs.
    """
    mine, others = jax.tree_util.tree_leaves_with_path(policy.params), jax.tree.leaves(params)
    tree: object = jax.tree.structure(policy.params)
    other_tree: object = jax.tree.structure(params)
    assert tree == other_tree, f"parameters have the structure {other_tree}, expected {tree}"
    for (path, leaf), other in zip(mine, others, strict=True):
        assert np.array_equal(leaf, other), f"parameter {jax.tree_util.keystr(path)} is not the policy's"
