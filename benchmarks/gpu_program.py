"""The training program as a GPU would run it, compiled where no GPU is: its kernels, fusions, memory.

    pip install "jax[cuda12]"                    # of the installed JAX's version: its plugin has the compiler
    python benchmarks/gpu_program.py             # the published configuration, one update, for an H100
    python benchmarks/gpu_program.py --smoke     # small sizes

One update of 64 environments x 1,024 steps, 4 layers of 256, 30 epochs, in TF32. JAX hands it to XLA's CUDA
compiler with the description of a GPU in place of the GPU. XLA then makes the machine code that it would make
there, but for one thing: it cannot time alternatives, so each matrix product is what it takes untuned.

Written to ``benchmarks/results/gpu-program.json``; with ``--text FILE`` also the compiled program as text.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"  # the plugin is loaded for its compiler, and must not look for a GPU

import jax
import jax.numpy as jnp
from _common import RESULTS, table
from jax.experimental import topologies

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9  minor: 10 }
runtime_version { major: 12  minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def topology() -> topologies.TopologyDescription:
    """Describe one H100 to XLA."""
    try:
        return topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    except NotImplementedError:
        raise SystemExit(
            f'JAX has no CUDA compiler here: pip install "jax[cuda12]=={jax.__version__}" (no GPU is needed)'
        ) from None


def lower(device: Any, envs: int, steps: int, width: int, epochs: int) -> Any:
    """Lower one update of the published configuration for the GPU."""
    from s5_adapters.purejax import PPOConfig, build_problem
    from s5_adapters.purejax.training import update_step

    memory_config = {"d_model": width, "d_state": width, "n_layers": 4}
    config = PPOConfig.paper(
        memory_config=memory_config,
        num_envs=envs,
        num_steps=steps,
        total_steps=10**9,
        num_epochs=epochs,
        precision="tensorfloat32",
    )
    problem = build_problem(config)
    init = functools.partial(config.init_state, problem, learning_rate=jnp.float32(5e-5))
    mesh = jax.sharding.Mesh([device], ("device",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def placed(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.tree.map(placed, jax.eval_shape(init, jax.random.key(0)))
    # What the package asks about the GPU it runs on, and JAX about the one that it lowers for.
    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(jax, "devices", return_value=[device]),
        jax.sharding.use_abstract_mesh(mesh.abstract_mesh),  # where JAX 0.11 looks for the kind of GPU
    ):
        traced = jax.jit(functools.partial(update_step, problem, config)).trace(state)
    return traced.lower(lowering_platforms=("cuda",))


def describe(program: str) -> dict[str, Any]:
    """Count the kernels of a compiled program, and of one turn of each of its loops."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            name = found[2]
            bodies[name] = []
            entry = name if found[1] else entry
        elif name:
            bodies[name].append(line)

    loops = []

    def kernels(computation: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for line in bodies[computation]:
            found = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(", line)
            match found[1] if found else "":
                case "fusion" if '"kind":"__triton' in line:
                    counts["fusions, Triton"] += 1
                case "fusion":
                    counts[f"fusions, {re.findall('kind=k([A-Za-z]+)', line)[0]}"] += 1
                case "custom-call":
                    counts[re.findall('custom_call_target="([^"]+)"', line)[0]] += 1
                case "call":
                    counts += kernels(re.findall(r"to_apply=%?([\w.\-]+)", line)[0])
                case "while":
                    turns = re.findall(r'"known_trip_count":\{"n":"(\d+)"', line)
                    inside = kernels(re.findall(r"body=%?([\w.\-]+)", line)[0])
                    loops.append({"turns": int(turns[0]) if turns else None} | inside)
                case "copy" | "sort" | "conditional" as operation:
                    counts[operation] += 1
                case operation if operation in COLLECTIVES:
                    counts[operation] += 1
        return counts

    return {"outside_loops": dict(kernels(entry)), "loops": loops}


def main() -> int:
    """Lower, compile, describe, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--text", type=Path, help="file for the compiled program as text")
    options = parser.parse_args()
    sizes = {"envs": 64, "steps": 1024, "width": 256, "epochs": 30}
    if options.smoke:
        sizes = {"envs": 8, "steps": 64, "width": 256, "epochs": 2}

    (device,) = topology().devices
    began = time.perf_counter()
    # JAX finds out which kind of GPU "gpu" means by looking for one.
    with mock.patch(
        "jax._src.xla_bridge.canonicalize_platform", lambda name: "cuda" if name == "gpu" else name
    ):
        lowered = lower(device, **sizes)
        lowered_s = time.perf_counter() - began
        compiled = lowered.compile()
    compiled_s = time.perf_counter() - began - lowered_s
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if options.text:
        options.text.write_text(text)
    row = {
        **sizes,
        "lowered_s": round(lowered_s, 1),
        "compiled_s": round(compiled_s, 1),
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "scratch_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        **describe(text),
    }
    counted = [("outside loops", row["outside_loops"])]
    counted += [(f"each of {loop['turns']} turns", loop) for loop in row["loops"]]
    figures = [(name, value) for name, value in row.items() if name not in ("outside_loops", "loops")]
    figures += [(f"{where}: {name}", n) for where, of in counted for name, n in of.items() if name != "turns"]
    print(table(["", "figure"], figures))
    if not options.smoke:
        target = {"device": device.device_kind, "jax": jax.__version__}
        record = {"benchmark": "gpu-program", "compiled_for": target, "rows": [row]}
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "gpu-program.json"
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
