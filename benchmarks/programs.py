"""The compiled programs of this checkout against those of another one: what no busy machine can blur.

    git worktree add --detach ../before COMMIT
    python benchmarks/programs.py ../before
    python benchmarks/programs.py ../before --cases SB3

Each case of `against.py` runs once in a process of its own for each checkout, and XLA writes down what it
compiled. A row is a program by name and size: its instructions, and of these the fusions, dots and copies, in
both checkouts; small programs are left out. Where the rows are equal, a difference in seconds is the
machine's, or Python's around the programs.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import announce, machine, recorded_rows, table, write_json
from against import HERE, commit_of, parse

LEAST_INSTRUCTIONS = 150
COUNTED = ("fusion", "dot", "copy")
Counts = tuple[int, ...]
"""All instructions of a program, then those in `COUNTED`."""


def programs(checkout: Path, case: str) -> dict[str, list[Counts]]:
    """Run a case with a checkout; return what was compiled by the programs' names, the largest first."""
    with tempfile.TemporaryDirectory() as folder:
        dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "envs")]),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {dump}",
        }
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [sys.executable, "-P", "-W", "ignore", str(HERE / "_against_worker.py")]
        done = subprocess.run(
            command, env=environment, cwd=checkout, input=f"{case}\n", capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{case}, {checkout}:\n{done.stderr[-2000:]}")
        found: dict[str, list[Counts]] = collections.defaultdict(list)
        for file in Path(folder).glob("*after_optimizations.txt"):
            text = file.read_text()
            name = re.search(r"HloModule ([\w.\-]+)", text)
            assert name is not None, file
            kinds = collections.Counter(re.findall(r"= \S+ ([a-z\-]+)\(", text))
            if kinds.total() >= LEAST_INSTRUCTIONS:
                counts = kinds.total(), *[kinds[kind] for kind in COUNTED]
                found[re.sub(r"\.\d+$", "", name[1])].append(counts)
    return {name: sorted(counts, reverse=True) for name, counts in found.items()}


def compare(case: str, before: dict[str, list[Counts]], now: dict[str, list[Counts]]) -> list[dict[str, Any]]:
    """Return a row for each program; programs of one name meet by their order of size."""
    rows = []
    for name in sorted({*before, *now}):
        ours, theirs = now.get(name, []), before.get(name, [])
        for i in range(max(len(ours), len(theirs))):
            row: dict[str, Any] = {"case": case, "program": name, "number": i}
            for label, side in (("before", theirs), ("now", ours)):
                row[label] = " ".join(map(str, side[i])) if i < len(side) else "-"
            rows.append(row | {"same": row["before"] == row["now"]})
    return rows


def main() -> int:
    """Compile, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options, other, cases = parse(parser)
    info = machine()
    announce(info)
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += compare(case, programs(other, case), programs(HERE.parent, case))
        own = [list(row.values()) for row in rows if row["case"] == case]
        print(table(["case", "program", "number", "before", "now", "same"], own), flush=True)
    if not options.no_record:
        rows = [*recorded_rows("programs", info, rows, ["case"]), *rows]
        write_json("programs", info, rows, before=commit_of(other), now=commit_of(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
