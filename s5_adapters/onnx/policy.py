"""A policy as one ONNX graph, which runs without JAX, torch and Python."""

from __future__ import annotations

import os
from typing import Any, Final

import jax

from s5_adapters.core.files.one_step import one_step
from s5_adapters.core.files.weights import Policy, write_whole

OPSET: Final = 18
"""Version of ONNX's operators: the first whose reductions all take their axes as input."""
_IR_VERSION: Final = 9
"""Version of the file, as old as the operators', so that older runtimes read it."""


def export_onnx(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write one step of a policy, weights inside, as an ONNX model.

    Inputs, for any batch size: ``obs`` ``(batch, *obs_shape)``, float32, or uint8 for images; ``state_0``,
    ``state_1``, ... float32 ``(batch, ...)``, zeros before the first step; ``episode_starts`` ``(batch,)``
    bool; and ``action_mask`` ``(batch, K)`` bool, true where allowed, of a policy trained with masks.

    Outputs: ``action``, the most likely one, in the environment's units and clipped to its bounds;
    ``distribution`` ``(batch, K)``, the logits, or the means and the logarithms of the standard deviations,
    to draw other actions from; ``next_state_0``, ... for the next step.

    The file is written whole or not at all.

    Args:
        path: the file.
        policy: what to export.

    Raises:
        ValueError: the package ``onnx`` is missing, or the memory computes something that has no counterpart
            here; one line.

    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"onnx: exporting takes pip install 's5-adapters[onnx]' ({error})") from error
    from s5_adapters.onnx.graph import Graph

    step = one_step(policy)
    traced = jax.jit(step.run).trace(*step.arguments).jaxpr
    count = len(step.arguments[1])
    states = [f"state_{i}" for i in range(count)]
    masks = ["action_mask"] if policy.config.action_mask else []
    graph = Graph()
    outputs = ["action", "distribution", *(f"next_{name}" for name in states)]
    proto = graph.model(traced, ["obs", *states, "episode_starts", *masks], outputs)
    model: Any = onnx.helper.make_model(
        proto,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="s5-adapters",
        doc_string="one step of a recurrent policy: docs/weights.md",
    )
    onnx.checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString())
