"""This checkout against another one, for example the commit before a change: every part that users wait for.

    git worktree add --detach ../before COMMIT
    python benchmarks/against.py ../before
    python benchmarks/against.py ../before --cases SB3 --rounds 20 --pairs 5

Each checkout has a process of its own for each case, with the same libraries; they take turns, sample by
sample, so that whatever else the machine does slows both alike. A process keeps what chance gave it, above
all where its memory lies: one checkout against itself differs by up to 5 % for as long as both live. So
there are several pairs of processes. `ratio` is the median over rounds of this checkout's time over the
other's, and then over pairs, each of which `pairs` shows; `least` is the ratio of the fastest samples.
`first` are the seconds of building and of the first call, imports and compilation included and no cache
read: medians over pairs, which take turns in who begins, as reading a file is slower the first time.
`first_pairs` shows each pair's ratio. Exits 1 where a ratio is above 1 + `--tolerance`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _against_worker import CASES
from _common import announce, machine, recorded_rows, table, write_json

HERE = Path(__file__).resolve().parent


class Worker:
    """A process that times cases with one checkout."""

    def __init__(self, checkout: Path, log: Path) -> None:
        """Start it; what it prints goes to `log`."""
        paths = [checkout, checkout / "envs"]
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        environment = os.environ | threads | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(HERE / "_against_worker.py")],
            env=environment,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )

    def seconds(self, case: str) -> float:
        """Take one sample.

        Raises:
            RuntimeError: the process ended; the message holds the end of what it printed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{case}: the process ended:\n{self.log.read_text()[-2000:]}")
        return float(json.loads(answer))

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def compare(case: str, checkouts: tuple[Path, Path], folder: Path, rounds: int, pairs: int) -> dict[str, Any]:
    """Measure one case on both sides, with new processes for each pair."""
    found = []
    for number in range(pairs):
        ours, theirs = (Worker(each, folder / f"{number}-{i}.txt") for i, each in enumerate(checkouts))
        try:
            found.append(_sample(case, ours, theirs, rounds, is_first=number % 2 == 0))
        finally:
            ours.close()
            theirs.close()
    ratios = [statistics.median(a / b for a, b in samples) for _, samples in found]
    ours_s, theirs_s = zip(*(pair for _, samples in found for pair in samples), strict=True)
    first_ours, first_theirs = zip(*(first for first, _ in found), strict=True)
    return {
        "case": case,
        "rounds": rounds,
        "before_s": round(statistics.median(theirs_s), 5),
        "now_s": round(statistics.median(ours_s), 5),
        "ratio": round(statistics.median(ratios), 3),
        "pairs": " ".join(f"{ratio:.3f}" for ratio in ratios),
        "least": round(min(ours_s) / min(theirs_s), 3),
        "first_before_s": round(statistics.median(first_theirs), 2),
        "first_now_s": round(statistics.median(first_ours), 2),
        "first_pairs": " ".join(f"{a / b:.2f}" for a, b in zip(first_ours, first_theirs, strict=True)),
    }


Pair = tuple[float, float]


def _sample(
    case: str, ours: Worker, theirs: Worker, rounds: int, *, is_first: bool
) -> tuple[Pair, list[Pair]]:
    """Return seconds of the first calls and of each round, ours and theirs; ours begins where it is first."""
    began = {side: side.seconds(case) for side in ((ours, theirs) if is_first else (theirs, ours))}
    first = began[ours], began[theirs]
    for side in (ours, theirs):
        side.seconds(case)
    samples: list[Pair] = []
    for number in range(rounds):
        if number % 2:
            samples.append((ours.seconds(case), theirs.seconds(case)))
        else:
            before = theirs.seconds(case)
            samples.append((ours.seconds(case), before))
    return first, samples


def commit_of(checkout: Path) -> str:
    """Return a checkout's commit, shortened."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Path, list[str]]:
    """Read the command line: its options, the other checkout and the cases; exit 2 where they do not fit."""
    parser.add_argument("checkout", type=Path, help="the other checkout's folder")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD", help="cases that hold a word")
    parser.add_argument("--no-record", action="store_true", help="write no JSON")
    options = parser.parse_args()
    other = options.checkout.resolve()
    if not (other / "s5_adapters").is_dir():
        parser.error(f"checkout: got {options.checkout}, expected a folder that holds s5_adapters")
    cases = [case for case in CASES if any(word in case for word in options.cases)]
    if not cases:
        parser.error(f"--cases: got {' '.join(options.cases)}, expected words of {'; '.join(CASES)}")
    return options, other, cases


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="samples of a pair of processes")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of processes, one after the other")
    parser.add_argument("--tolerance", type=float, default=0.05)
    options, other, cases = parse(parser)
    info = machine()
    announce(info)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            rows.append(compare(case, (HERE.parent, other), Path(folder), options.rounds, options.pairs))
            print(table(list(rows[-1]), [list(rows[-1].values())]), flush=True)
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    if not options.no_record:
        rows = [*recorded_rows("against", info, rows, ["case"]), *rows]
        write_json("against", info, rows, before=commit_of(other), now=commit_of(HERE.parent))
    return int(any(row["ratio"] > 1 + options.tolerance for row in rows))


if __name__ == "__main__":
    sys.exit(main())
