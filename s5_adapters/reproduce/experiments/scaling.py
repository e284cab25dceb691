"""Seconds and bytes of every memory against the length of the sequence, training and acting."""

from __future__ import annotations

from s5_adapters.core import memory_names
from s5_adapters.reproduce.spec import Entry, Experiment, Scale

LENGTHS = tuple(2**k for k in range(7, 17))
_WIDTH = {"small": 64, "paper": 256}
_BATCH = {"small": 8, "paper": 64}


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every memory at every length."""
    return tuple(
        Entry(f"length-{length}", memory, scale, "scaling", _work(memory, length, scale), "", length, 1)
        for length in LENGTHS
        for memory in sorted(memory_names(), key=lambda name: name != "s5")
    )


def _work(memory: str, length: int, scale: Scale) -> dict[str, object]:
    config: dict[str, object] = {"d_model": _WIDTH[scale], "n_layers": 2}
    if memory in ("s5", "lru"):
        config["d_state"] = _WIDTH[scale]
    if memory == "attention":
        config["context"] = length
    return {"memory": memory, "memory_config": config, "length": length, "batch": _BATCH[scale]}


EXPERIMENT = Experiment(
    title="Scaling with the length of a sequence",
    text=(
        "Training is the forward and the backward pass of two layers over a batch of sequences, in "
        "nanoseconds per step of a sequence, with XLA's count of temporary memory. Acting is one step of "
        "as many sequences after that many steps, with the bytes that the memory carries for each. "
        "Attention sees the whole sequence; where it does not fit into memory, the line says so.",
    ),
    entries=entries,
    seeds={"small": 1, "paper": 1},
    report="scaling",
    timed=True,
)
