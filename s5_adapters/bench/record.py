"""The measurements of a cell while it trains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from s5_adapters.bench.spec import Spec
from s5_adapters.sweeps.curves import final_return

_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class Recorder:
    """A record of every update: environment steps, seconds without compiling, returns, where the time went.

    Time starts at `start`. Seconds that JAX spends lowering and compiling are kept apart in every framework
    alike; tracing is not, since traces nest.
    """

    def __init__(self, spec: Spec) -> None:
        """Listen to JAX's compiler from now on."""
        self.spec = spec
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.differences: list[str] = []
        self._compiling = 0.0
        self._parts: dict[str, float] = {}
        self._began = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def start(self) -> None:
        """Set the clock to zero as training begins; what was compiled before stays counted."""
        self._began, self._before = time.perf_counter(), self._compiling

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `work` so that its time, without compiling, counts as that part of the current update."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began, compiling = time.perf_counter(), self._compiling
            result = work(*args, **kwargs)
            self.note(name, time.perf_counter() - began - (self._compiling - compiling))
            return result

        return call

    def note(self, name: str, seconds: float) -> None:
        """Count seconds as a part ("collect", "update") of the current update."""
        self._parts[name] = self._parts.get(name, 0.0) + seconds

    def updated(self, steps: int, returns: Sequence[float]) -> None:
        """Record an update at so many environment steps; `returns` are of the episodes that ended in it."""
        seconds = time.perf_counter() - self._began - (self._compiling - self._before)
        mean = float(np.mean(returns)) if len(returns) else None
        self.rows.append({"step": steps, "seconds": seconds, "episode_return": mean, **self._parts})
        self._parts = {}

    @property
    def compiling(self) -> float:
        """Seconds that JAX has spent compiling so far."""
        return self._compiling

    def result(self) -> dict[str, Any]:
        """Return what the report reads."""
        if not self.rows:
            raise ValueError("total_steps: not one update fits into them")
        per_update = self.rows[0]["step"]
        parts = {name: [row[name] for row in self.rows if name in row] for name in ("collect", "update")}
        whole = np.diff([row["seconds"] for row in self.rows])
        first = next((row for row in self.rows if _reached(row, self.spec.threshold)), None)
        return {
            "steps": self.rows[-1]["step"],
            "seconds": self.rows[-1]["seconds"],
            "compile_seconds": self.facts.pop("compile_seconds", self._compiling),
            "steps_per_second": {
                "total": per_update / statistics.median(whole) if len(whole) else None,
                **{
                    name: per_update / statistics.median(seconds) if seconds else None
                    for name, seconds in parts.items()
                },
            },
            "final_return": final_return(
                [row["step"] for row in self.rows], [row["episode_return"] for row in self.rows]
            ),
            "threshold": {
                "return": self.spec.threshold,
                "step": first and first["step"],
                "seconds": first and first["seconds"],
            },
            "differences": self.differences,
            **self.facts,
            "curve": self.rows,
        }

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in _COMPILING:
            self._compiling += duration_secs


def _reached(row: dict[str, Any], threshold: float) -> bool:
    return row["episode_return"] is not None and row["episode_return"] >= threshold
