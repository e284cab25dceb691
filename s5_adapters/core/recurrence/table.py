"""Which scan method a benchmark found fastest: the table behind ``method="auto"``.

``benchmarks/scan.py --write-table`` measures every method on the machine at hand and replaces that platform's
rows in ``scan_table.json``: ``{platform: [{"length": T, "batch": B, "method": name}, ...]}``.
"""

import json
import math
from functools import cache
from importlib.resources import files
from typing import Final, TypedDict

from s5_adapters.core.xla.platform import default_platform, has_mosaic, has_pallas


class Row(TypedDict):
    """The fastest method measured at one shape."""

    length: int
    batch: int
    method: str


@cache
def load_table() -> dict[str, list[Row]]:
    """Return the table that ships with the package."""
    table: dict[str, list[Row]] = json.loads(files(__package__).joinpath("scan_table.json").read_text())
    return table


MOSAIC_LANES: Final = 128
"""Widths of which the Mosaic GPU kernels read arrays as they lie."""


def measured_method(*, length: int, batch: int, width: int) -> str:
    """Return the method measured fastest at the shape nearest to this one, in ratios, on this process's
    platform.

    Where nobody has measured, a GPU takes its kernel, which reads and writes everything once: since Hopper
    the one for Mosaic GPU where that needs no copy, else the one for Triton, where JAX has it. Anything else,
    or a GPU that Pallas does not serve, takes the associative scan, the only method whose depth is
    logarithmic.
    """
    rows = load_table().get(default_platform())
    if not rows:
        if has_mosaic() and (width % MOSAIC_LANES == 0 or not has_pallas()):
            return "mosaic"
        return "pallas" if has_pallas() else "associative"

    def distance(row: Row) -> float:
        return abs(math.log(row["length"] / max(length, 1))) + abs(math.log(row["batch"] / max(batch, 1)))

    return min(rows, key=distance)["method"]


def varying_method() -> str:
    """Return the method for a decay of every step: on a CPU the loop, at every size measured; else the one
    whose depth is logarithmic.
    """
    return "sequential" if default_platform() == "cpu" else "associative"
