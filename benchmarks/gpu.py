"""Every measure of speed on a GPU, in one run of at most eight minutes.

    make gpu-bench                          # benchmarks/results/gpu-<machine>.json, and a table
    python benchmarks/gpu.py --smoke        # tiny sizes on any machine, to see that it runs

Where jax, flax, optax and numpy alone are installed, the rest is put on the path:

    pip install --target DEPS --no-deps gymnax gymnasium farama-notifications cloudpickle
    PYTHONPATH=.:envs:DEPS python benchmarks/gpu.py --out FOLDER

Parts, in this order: "copy" measures what the memory gives; "check" holds the kernels against float64; "scan"
times the recurrence beside the published operator and says what fraction of the copy's bandwidth it reaches;
"layer" is that of layer.py; "trainer" is the published configuration (64 environments x 1,024 steps, 4 layers
of 256, 30 epochs) in TF32, with the shares of acting, scans and idle time, eight seeds at once, and GRUs of
four layers and of one, as published; "tasks" the published tasks RepeatPreviousHard and MetaCartPole, and the
other precisions; "varying" times the recurrence with a decay of every step; "memories" is S5 beside GRU, LSTM
and attention; "acting" and "stack" are those of acting.py and layer.py; "tuning" times the kernels alone by
their settings. Each row is written as it is measured, so a run cut short keeps what it has; a part that fails
is recorded with its error; `--parts` measures some again and keeps the record's other rows. The exit code is
1 where a part failed or a figure misses its target.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import itertools
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import acting
import jax
import jax.numpy as jnp
import layer
import numpy as np
from _common import (
    RESULTS,
    announce,
    interleaved_medians,
    machine,
    recorded_rows,
    table,
    verdict,
    write_json,
)
from _published import published_scan

from s5_adapters.core import linear_recurrence, make_memory
from s5_adapters.core.recurrence import mosaic as scan_mosaic
from s5_adapters.core.recurrence import pallas as scan_pallas
from s5_adapters.core.recurrence import planar
from s5_adapters.core.recurrence.methods import VARYING_METHODS
from s5_adapters.core.recurrence.scan import resettable_scan
from s5_adapters.core.xla.platform import has_mosaic, has_pallas
from s5_adapters.sweeps.machine import usable_cores

Row = dict[str, Any]

# What this machine runs, the kernel that "auto" takes first. A CPU interprets the kernels for Triton.
KERNELS = [name for name, runs in (("mosaic", has_mosaic()), ("pallas", has_pallas())) if runs] or ["pallas"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of all parts."""

    scans: tuple[tuple[int, int], ...] = ((1024, 64), (4096, 64), (1024, 8))
    lanes: int = 128
    steps: tuple[int, ...] = (8, 16, 32)
    """Steps of a kernel's block."""
    layers: tuple[tuple[int, int], ...] = ((1024, 64),)
    memories: tuple[int, int] = (1024, 64)
    width: int = 256
    envs: int = 64
    rollout: int = 1024
    epochs: int = 30
    compared_epochs: int = 2
    """Epochs of the runs that are only compared with each other: a GRU's thirty would take minutes."""
    seeds: int = 8
    copied_bytes: int = 2**30
    repeats: int = 20
    rounds: int = 5


SMOKE = Sizes(
    scans=((16, 2),),
    lanes=8,
    steps=(4,),
    layers=((16, 2),),
    memories=(16, 2),
    width=16,
    envs=8,
    rollout=8,
    epochs=2,
    compared_epochs=1,
    seeds=2,
    copied_bytes=2**20,
    repeats=2,
    rounds=1,
)
SCAN_KERNELS = ("resettable_scan", "mosaic_gpu_kernel")
"""Names in a trace of the recurrence's kernels: Triton's carry ours, Mosaic's are all called alike."""
SCAN_TARGET, BANDWIDTH_TARGET, LAYER_TARGET = 6.0, 0.70, 4.0
TRAINER_TARGET, GRU_TARGET, SEEDS_TARGET = 150_000, 10.0, 2.5
BUDGET_S = 480.0
IDENTITY = ("part", "size", "kernel", "scan", "decay", "run", "memory", "length", "batch", "program")
IDENTITY += ("steps", "segment")
"""What tells rows apart: one that is measured again replaces the record's."""


def compiled(
    programs: Mapping[str, tuple[Callable[..., Any], Sequence[Any]]],
) -> dict[str, Callable[[], Any]]:
    """Compile functions for their arguments, all at once on the cores there are, and return the calls.

    One after another the training programs alone would take longer than everything that is measured.
    """
    lowered = [jax.jit(function).lower(*arguments) for function, arguments in programs.values()]
    with ThreadPoolExecutor(usable_cores()) as pool:
        ready = list(pool.map(lambda program: program.compile(), lowered))
    return {
        name: functools.partial(program, *arguments)
        for program, (name, (_, arguments)) in zip(ready, programs.items(), strict=True)
    }


def check(sizes: Sizes) -> list[Row]:
    """Compare the kernels with a float64 loop, values and gradients, at an awkward and a real size."""
    rows, programs, truths = list[Row](), {}, {}
    for length, batch, width in ((37, 3, 33), (sizes.scans[0][0], 4, sizes.lanes)):
        rng = np.random.default_rng(0)

        def normal(*shape: int, rng: np.random.Generator = rng) -> Any:
            return rng.normal(size=shape) + 1j * rng.normal(size=shape)

        decay = rng.uniform(0.5, 0.999, width) * np.exp(1j * rng.uniform(0, np.pi, width))
        inputs, initial = normal(length, batch, width), normal(batch, width)
        starts, cotangent = rng.random((length, batch)) < 0.02, normal(length, batch, width)
        states, expected = np.empty_like(inputs), np.zeros_like(decay)
        carried = initial
        for t in range(length):
            carried = states[t] = inputs[t] + np.where(starts[t][:, None], 0, decay * carried)
        adjoint, later = np.empty_like(inputs), np.zeros_like(initial)
        for t in reversed(range(length)):
            adjoint[t] = cotangent[t] + later
            kept = np.where(starts[t][:, None], 0, adjoint[t])
            expected = expected + (kept * (states[t - 1] if t else initial)).sum(axis=0)
            later = decay * kept

        def run(kernel: str, decay: Any, inputs: Any, initial: Any, starts: Any, cotangent: Any) -> Any:
            states, vjp = jax.vjp(
                lambda d, u, h: linear_recurrence(d, u, starts, h, method=kernel), decay, inputs, initial
            )
            return states, *vjp(cotangent)

        narrow = [jnp.asarray(x, jnp.complex64) for x in (decay, inputs, initial)]
        arguments = *narrow, jnp.asarray(starts), jnp.asarray(cotangent, jnp.complex64)
        for kernel in KERNELS:
            name = f"{length} x {batch} x {width}", kernel
            programs[" ".join(name)] = functools.partial(run, kernel), arguments
            truths[" ".join(name)] = name, (states, expected, adjoint, later)
    calls = compiled(programs)
    for call, ((size, kernel), truth) in truths.items():
        errors = [
            float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
            for ours, theirs in zip(calls[call](), truth, strict=True)
        ]
        row = {"size": size, "kernel": kernel, "value_error": errors[0], "gradient_error": max(errors[1:])}
        row["missed"] = [
            f"{name} {error:.1e}, at most {limit:.0e}"
            for name, error, limit in (("value", errors[0], 1e-5), ("gradient", max(errors[1:]), 1e-4))
            if not error <= limit
        ]
        rows.append(row)
    return rows


def repeated(function: Callable[..., Any], repeats: int) -> Callable[..., Any]:
    """Call ``function(initial, *rest) -> (next initial, result)`` in a loop on the device.

    A kernel of thirty microseconds is shorter than the call that starts it, so calls from the host would time
    the host. Each round starts from the state the last one reached, which keeps the compiler from doing the
    work once.
    """

    def run(initial: Any, *rest: Any) -> Any:
        shapes = jax.eval_shape(function, initial, *rest)[1]
        first = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        return jax.lax.fori_loop(0, repeats, lambda _, carry: function(carry[0], *rest), (initial, first))

    return run


def copy(sizes: Sizes) -> list[Row]:
    """Measure bytes per second of a scaled copy, read and written, of a large array."""
    x = jnp.ones(sizes.copied_bytes // 4, jnp.float32)
    program = jax.jit(lambda x: x * 1.5)
    seconds = interleaved_medians(
        {"copy": lambda: program(x)}, rounds=sizes.rounds, min_sample_s=0.2, wait_each=False
    )["copy"]
    return [{"copy_gb_per_s": 2 * x.nbytes / seconds / 1e9}]


def scan(sizes: Sizes, copy_gb_per_s: float) -> Iterator[Row]:
    """Measure the recurrence: ours by method, float32 and bfloat16 inputs, and the published operator.

    `us` is the time of a call in a loop on the device, which waits between calls; `kernels_us` that of its
    kernels alone, which is what the call costs among others. Ratios and bandwidth are of the latter.
    """
    for length, batch in sizes.scans:
        rng = np.random.default_rng(0)
        decay = rng.uniform(0.9, 0.999, sizes.lanes) * np.exp(1j * rng.uniform(0, np.pi, sizes.lanes))
        decay = planar.from_complex(jnp.asarray(decay, jnp.complex64))
        inputs = jnp.asarray(rng.normal(size=(length, batch, 2, sizes.lanes)), jnp.float32)
        cotangent = jnp.asarray(rng.normal(size=inputs.shape), jnp.float32)
        starts = jnp.asarray(rng.random((length, batch)) < 0.01)
        initial = jnp.zeros((batch, 2, sizes.lanes))

        def published(initial: Any, decay: Any, inputs: Any, starts: Any) -> Any:
            states = published_scan(decay, inputs, starts, initial)
            return states[-1], states

        def ours(method: str, initial: Any, decay: Any, inputs: Any, starts: Any) -> Any:
            states = resettable_scan(decay, inputs, starts, initial, method=method)
            return states[-1], states

        def both(forward: Any, initial: Any, decay: Any, inputs: Any, starts: Any, cotangent: Any) -> Any:
            # Of the states alone: a gradient for the last one too would be added in a pass over all of them.
            states, vjp = jax.vjp(lambda h, d, u: forward(h, d, u, starts)[1], initial, decay, inputs)
            return states[-1], (states, vjp(cotangent))

        arrays = decay, inputs, starts, cotangent
        complex_arrays = tuple(planar.to_complex(x) if x.dtype != bool else x for x in arrays)
        narrow = decay, inputs.astype(jnp.bfloat16), starts, cotangent
        programs = {"published": (published, planar.to_complex(initial), complex_arrays)}
        # A second kernel takes long to compile: at the first size alone.
        kernels = KERNELS if (length, batch) == sizes.scans[0] else KERNELS[:1]
        for method in (*kernels, "associative"):
            programs[method] = functools.partial(ours, method), initial, arrays
        programs[f"{KERNELS[0]}, bfloat16"] = functools.partial(ours, KERNELS[0]), initial, narrow
        sized = {name: {"size": f"{length} x {batch} x {sizes.lanes}", "scan": name} for name in programs}
        for direction, passes in (("forward", 2), ("forward_backward", 5)):
            timed = {}
            for name, (forward, start, rest) in programs.items():
                function = forward if direction == "forward" else functools.partial(both, forward)
                given = (start, *(rest[:3] if direction == "forward" else rest))
                timed[name] = repeated(function, sizes.repeats), given
            calls = compiled(timed)
            medians = interleaved_medians(calls, rounds=sizes.rounds)
            kernels_s = {name: busy_seconds(call) or medians[name] for name, call in calls.items()}
            for name, row in sized.items():
                row[f"{direction}_us"] = 1e6 * medians[name] / sizes.repeats
                seconds = kernels_s[name] / sizes.repeats
                row[f"{direction}_kernels_us"] = 1e6 * seconds
                row[f"{direction}_ratio"] = kernels_s["published"] / kernels_s[name]
                row[f"{direction}_bandwidth"] = passes * inputs.nbytes / seconds / 1e9 / copy_gb_per_s
        first = sized[KERNELS[0]]
        first["missed"] = []
        if (length, batch) == (1024, 64):
            for direction in ("forward", "forward_backward"):
                for what, target in (("ratio", SCAN_TARGET), ("bandwidth", BANDWIDTH_TARGET)):
                    figure = first[f"{direction}_{what}"]
                    if figure < target:
                        first["missed"].append(f"{direction} {what} {figure:.2f}, at least {target}")
        yield from sized.values()


def varying(sizes: Sizes) -> list[Row]:
    """Measure the recurrence with a decay of every step, forward and backward, by method."""
    rows = []
    for length, batch in sizes.scans[:1]:
        rng = np.random.default_rng(0)
        shape = length, batch, 1, sizes.lanes
        decay = jnp.asarray(rng.uniform(0.9, 0.999, shape), jnp.float32)
        inputs = jnp.asarray(rng.normal(size=shape), jnp.float32)
        starts = jnp.asarray(rng.random((length, batch)) < 0.01)

        def both(initial: Any, decay: Any, inputs: Any, starts: Any, method: str) -> Any:
            states, vjp = jax.vjp(
                lambda h, d, u: resettable_scan(d, u, starts, h, method=method), initial, decay, inputs
            )
            return states[-1], (states, vjp(inputs))

        arguments = jnp.zeros(shape[1:]), decay, inputs, starts
        timed = {
            method: (repeated(functools.partial(both, method=method), sizes.repeats), arguments)
            for method in VARYING_METHODS
        }
        for method, seconds in interleaved_medians(compiled(timed), rounds=sizes.rounds).items():
            row = {"size": f"{length} x {batch} x {sizes.lanes}", "decay": "every step", "scan": method}
            rows.append(row | {"forward_backward_us": 1e6 * seconds / sizes.repeats})
    return rows


def cut_forward(cut: Row, initial: Any, decay: Any, inputs: Any, starts: Any) -> Any:
    """Return the forward kernel with given settings, for `repeated`."""
    forward = scan_mosaic.mosaic if KERNELS[0] == "mosaic" else scan_pallas.pallas
    states = forward(decay, inputs, starts, initial, **cut)
    return states[-1], states


def cut_adjoint(cut: Row, initial: Any, decay: Any, inputs: Any, starts: Any) -> Any:
    """Return the adjoint kernel with given settings, for `repeated`."""
    adjoint = scan_mosaic.mosaic_adjoint if KERNELS[0] == "mosaic" else scan_pallas.pallas_adjoint
    result = adjoint(decay, inputs, starts, inputs, initial, **cut)
    return result[2], result


def tuning(sizes: Sizes) -> Iterator[Row]:
    """Measure the recurrence's kernels alone by two settings: steps of a block, steps of a segment.

    Where a batch is cut into segments, `kernels_us` is the sum of both: the segments' ends, and the states.
    """
    rng = np.random.default_rng(0)
    for length, batch in dict.fromkeys((sizes.scans[0], sizes.scans[-1])):
        decay = jnp.asarray(0.5 * rng.normal(size=(2, sizes.lanes)), jnp.float32)
        inputs = jnp.asarray(rng.normal(size=(length, batch, 2, sizes.lanes)), jnp.float32)
        starts = jnp.asarray(rng.random((length, batch)) < 0.01)
        arguments = jnp.zeros((batch, 2, sizes.lanes)), decay, inputs, starts
        for kernel, function, arrays in (("forward", cut_forward, 1), ("adjoint", cut_adjoint, 2)):
            # Steps by what they take of registers or shared memory: the adjoint reads two arrays.
            cuts = [
                {"steps": steps // arrays, "segment": segment}
                for steps, segment in itertools.product(sizes.steps, (None, 64, 256, length))
            ]
            timed = {
                str(i): (repeated(functools.partial(function, cut), sizes.repeats), arguments)
                for i, cut in enumerate(cuts)
            }
            for i, call in compiled(timed).items():
                seconds = busy_seconds(call, is_scan) or seconds_of(call, sizes)
                size = {"size": f"{length} x {batch} x {sizes.lanes}"}
                row = size | {"kernel": f"{KERNELS[0]}, {kernel}"} | cuts[int(i)]
                yield row | {"kernels_us": 1e6 * seconds / sizes.repeats}


def layers(part: str, sizes: Sizes) -> list[Row]:
    """Measure the layer or the stack of layer.py and the published program."""
    rows = []
    for length, batch in sizes.layers:
        for row in layer.measure(part, length, batch, [layer.DEFAULT], sizes.rounds, wait_each=False):
            ratio = row["forward_backward_ratio"]
            short = part == "layer" and row["program"] != layer.PUBLISHED and ratio and ratio < LAYER_TARGET
            rows.append(row | {"missed": [f"ratio {ratio:.2f}, at least {LAYER_TARGET}"] if short else []})
    return rows


def memories(sizes: Sizes) -> list[Row]:
    """Measure forward and backward through four layers of each memory at equal width."""
    length, batch = sizes.memories
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(length, batch, sizes.width)), jnp.float32)
    starts = jnp.asarray(rng.random((length, batch)) < 0.01)
    timed = {}
    for name in ("s5", "gru", "lstm", "attention"):
        config = {"d_model": sizes.width, "n_layers": 4}
        memory = make_memory(name, **config, **({"d_state": sizes.width} if name == "s5" else {}))
        state = memory.initial_state(batch)
        params = memory.init(jax.random.key(0), sizes.width)

        def run(params: Any, state: Any, memory: Any = memory) -> Any:
            return jax.grad(lambda p: jnp.sum(memory.apply(p, state, x, starts)[1] ** 2))(params)

        timed[name] = run, (params, state)
    medians = interleaved_medians(compiled(timed), rounds=sizes.rounds, wait_each=False)
    return [
        {"memory": name, "forward_backward_ms": 1e3 * seconds, "ratio": seconds / medians["s5"]}
        for name, seconds in medians.items()
    ]


def build(
    sizes: Sizes, *, memory: str = "s5", n_layers: int = 4, seeds: int = 1, **settings: Any
) -> dict[str, Any]:
    """Return an update and a rollout of the published configuration as `compiled` takes them."""
    if find_spec("matplotlib") is None:  # gymnax imports it to draw environments; nothing is drawn here
        sys.modules.update({name: mock.MagicMock() for name in ("matplotlib", "matplotlib.pyplot")})
    from s5_adapters.purejax import PPOConfig, build_problem
    from s5_adapters.purejax.rollout import collect
    from s5_adapters.purejax.training import update_step

    memory_config: Row = {"d_model": sizes.width, "n_layers": n_layers}
    if memory == "s5":
        memory_config |= {"d_state": sizes.width}
    shape = {"num_envs": sizes.envs, "num_steps": sizes.rollout, "total_steps": 10**9}
    config = PPOConfig.paper(memory=memory, memory_config=memory_config, **shape, **settings)
    problem = build_problem(config)
    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.vmap(lambda key: config.init_state(problem, key, jnp.float32(5e-5)))(keys)
    update = functools.partial(update_step, problem, config)
    if seeds > 1:
        return {"update": (jax.vmap(update), (state,))}
    state = jax.tree.map(lambda x: x[0], state)
    acting = functools.partial(collect, problem, config)
    return {"update": (update, (state,)), "acting": (acting, (state.params, state.carry, state.key))}


def seconds_of(call: Callable[[], Any], sizes: Sizes) -> float:
    """Return the median seconds of one call that takes long."""
    return interleaved_medians({"": call}, rounds=min(sizes.rounds, 3), min_sample_s=0.0)[""]


def trainer(sizes: Sizes) -> Iterator[Row]:
    """Measure the published configuration, one update at a time."""
    precision = "tensorfloat32" if jax.default_backend() == "gpu" else "float32"
    few: Row = {"num_epochs": sizes.compared_epochs}
    published = build(sizes, num_epochs=sizes.epochs, precision=precision)
    programs = {
        "published": published["update"],
        "acting": published["acting"],
        "one": build(sizes, **few)["update"],
        "seeds": build(sizes, seeds=sizes.seeds, **few)["update"],
        "GRU": build(sizes, memory="gru", **few)["update"],
        "published GRU": build(sizes, memory="gru", n_layers=1, **few)["update"],
    }
    began = time.perf_counter()
    calls = compiled(programs)
    yield {"run": "compiling side by side", "programs": len(calls), "compile_s": time.perf_counter() - began}

    seconds = seconds_of(calls["published"], sizes)
    speed = sizes.envs * sizes.rollout / seconds
    yield {
        "run": f"published configuration, {precision}",
        "update_s": seconds,
        "env_steps_per_s": round(speed),
        "acting_share": seconds_of(calls["acting"], sizes) / seconds,
        "missed": [f"{speed:.0f} env-steps/s, at least {TRAINER_TARGET}"] if speed < TRAINER_TARGET else [],
    }
    epochs = f", {sizes.compared_epochs} epochs"
    one = seconds_of(calls["one"], sizes)
    yield {"run": f"one seed{epochs}", "update_s": one} | device_shares(calls["one"])
    ratio = seconds_of(calls["seeds"], sizes) / one
    yield {
        "run": f"{sizes.seeds} seeds at once{epochs}",
        "times_one_seed": ratio,
        "missed": [f"{ratio:.2f} times one seed, at most {SEEDS_TARGET}"] if ratio > SEEDS_TARGET else [],
    }
    ratio = seconds_of(calls["GRU"], sizes) / one
    yield {
        "run": f"GRU of 4 layers{epochs}",
        "times_s5": ratio,
        "missed": [f"{ratio:.2f} times S5's time, at least {GRU_TARGET}"] if ratio < GRU_TARGET else [],
    }
    ratio = seconds_of(calls["published GRU"], sizes) / one
    yield {"run": f"GRU of 1 layer, as published{epochs}", "times_s5": ratio}


def tasks(sizes: Sizes) -> Iterator[Row]:
    """Measure what else is published, a few epochs of each, and the other precisions with all of them."""
    few: Row = {"num_epochs": sizes.compared_epochs}
    runs: dict[str, Row] = {
        f"RepeatPreviousHard, {sizes.compared_epochs} epochs": {"env_id": "RepeatPreviousHard"} | few,
        f"MetaCartPole-v0, {sizes.compared_epochs} epochs": {
            "env_id": "MetaCartPole-v0",
            "env_kwargs": {"previous_action": True},
        }
        | few,
    }
    for precision in ("float32", "bfloat16"):
        runs[f"published configuration, {precision}"] = {"num_epochs": sizes.epochs, "precision": precision}
    calls = compiled({run: build(sizes, **settings)["update"] for run, settings in runs.items()})
    for run, call in calls.items():
        seconds = seconds_of(call, sizes)
        speed = sizes.envs * sizes.rollout / seconds
        yield {"run": run, "update_s": seconds, "env_steps_per_s": round(speed)}


def kernels_of(call: Callable[[], Any]) -> list[tuple[float, float, str]]:
    """Return what a call runs on the GPU, in order: when, how long (µs), its name. On a CPU nothing."""
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            jax.block_until_ready(call())
        (path,) = Path(folder).rglob("perfetto_trace.json.gz")
        trace = json.loads(gzip.decompress(path.read_bytes()))
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    devices = {
        event["pid"]
        for event in events
        if event.get("name") == "process_name" and "/device:GPU" in str(event["args"].get("name"))
    }
    streams = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and "Stream" in str(event["args"].get("name"))
    }
    return sorted(
        (event["ts"], event["dur"], event["name"])
        for event in events
        if event.get("ph") == "X" and event["pid"] in devices and (event["pid"], event["tid"]) in streams
    )


def is_scan(kernel: str) -> bool:
    """Tell whether a kernel is the recurrence's, by its name in a trace."""
    return any(part in kernel for part in SCAN_KERNELS)


def busy_seconds(call: Callable[[], Any], counts: Callable[[str], bool] = bool) -> float:
    """Measure the seconds in which those of a call's kernels run that count, overlaps once; 0 on a CPU."""
    busy, until = 0.0, 0.0
    for start, duration, name in kernels_of(call):
        if counts(name):
            busy += max(0.0, start + duration - max(start, until))
            until = max(until, start + duration)
    return busy / 1e6


def device_shares(call: Callable[[], Any]) -> Row:
    """Measure the shares of a call in the scan's kernels and idle, and how many µs which kernels take."""
    kernels = kernels_of(call)
    if not kernels:
        return {"scan_share": None, "idle_share": None, "kernels": None}
    totals: dict[str, list[float]] = {}
    for _, duration, name in kernels:
        count, total = totals.get(name, [0, 0.0])
        totals[name] = [count + 1, total + duration]
    longest = sorted(totals.items(), key=lambda item: -item[1][1])[:40]
    wall = max(ts + dur for ts, dur, _ in kernels) - min(ts for ts, _, _ in kernels)
    busy = sum(dur for _, dur, _ in kernels)
    scans = sum(dur for _, dur, name in kernels if is_scan(name))
    return {
        "scan_share": scans / wall,
        "idle_share": max(0.0, 1 - busy / wall),
        "kernels": len(kernels),
        "longest": {name: {"count": count, "us": round(total)} for name, (count, total) in longest},
    }


def show(rows: list[Row]) -> str:
    """Format the rows of one part as a table; columns are their figures."""

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    names = list(
        dict.fromkeys(name for row in rows for name in row if name not in ("part", "missed", "longest"))
    )
    return table(names, [[text(row.get(name, "-")) for name in names] for row in rows])


def main() -> int:
    """Run every part, writing after each row; 1 where a part failed or a figure misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no targets")
    parser.add_argument("--parts", nargs="+", help="which parts (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    options = parser.parse_args()
    if options.smoke and options.out == RESULTS:
        options.out = Path(tempfile.mkdtemp())
    sizes, budget_s = (SMOKE, math.inf) if options.smoke else (Sizes(), BUDGET_S)
    if options.smoke:  # most of it is compiling
        jax.config.update("jax_disable_most_optimizations", True)

    info, rows = machine(), list[Row]()
    announce(info)
    bandwidth = copy(sizes)[0]["copy_gb_per_s"]
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "copy": lambda: [{"copy_gb_per_s": bandwidth}],
        "check": lambda: check(sizes),
        "scan": lambda: scan(sizes, bandwidth),
        "layer": lambda: layers("layer", sizes),
        "trainer": lambda: trainer(sizes),
        "tasks": lambda: tasks(sizes),
        "varying": lambda: varying(sizes),
        "memories": lambda: memories(sizes),
        "acting": lambda: [acting.measure(batch, sizes.rounds) for batch in acting.TARGETS],
        "stack": lambda: layers("stack", sizes),
        "tuning": lambda: tuning(sizes),
    }

    def write(rows: list[Row]) -> Path:
        kept = recorded_rows("gpu", info, rows, IDENTITY) if options.out == RESULTS else []
        return write_json("gpu", info, [*kept, *rows], folder=options.out)

    began = time.perf_counter()
    for part in options.parts or parts:
        started, ours = time.perf_counter(), list[Row]()
        if started - began > budget_s:
            ours = [{"part": part, "missed": [f"not begun: {budget_s:.0f} s were over"]}]
        else:
            try:
                for row in parts[part]():
                    ours.append({"part": part} | row)
                    write(rows + ours)
            except Exception as error:  # one part's failure must not cost the others' figures
                traceback.print_exc()
                ours.append({"part": part, "missed": [f"failed: {type(error).__name__}: {error}"]})
        rows += ours
        path = write(rows)
        print(f"{part} ({time.perf_counter() - started:.0f} s)\n{show(ours)}\n", flush=True)
    print(f"written: {path}")
    missed = [f"{row.get('part')}: {line}" for row in rows for line in row.get("missed", [])]
    if options.smoke:
        missed = [line for line in missed if ": failed" in line or "error" in line]
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
