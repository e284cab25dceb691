"""The command: read a folder, replay it, print a table, exit with a verdict."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from s5_envs.conformance.replay import Result, replay_file
from s5_envs.conformance.traces import TraceError, TraceFile

_COLUMNS = ("family", "episodes", "transitions", "obs", "reward", "largest", "terminated", "truncated", "")


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a folder of traces.

    Returns:
        0 where everything recorded was replayed and nothing differed, 1 where not, 2 for input that cannot be
        read (one line on stderr says what is wrong).
    """
    parser = argparse.ArgumentParser(
        prog="python -m s5_envs.conformance",
        description="Replay recorded episodes of the reference environments and count every difference.",
    )
    parser.add_argument("folder", type=Path, help="folder of .npz files, one a family")
    parser.add_argument(
        "--family", action="append", metavar="NAME", help="replay this file only (may be repeated)"
    )
    options = parser.parse_args(argv)
    began = time.perf_counter()
    try:
        files = _files(options.folder, options.family)
        print(_row(_COLUMNS), flush=True)
        passed = True
        for file in files:
            for result in replay_file(file):
                print(_line(result), flush=True)
                passed &= result.passed
    except TraceError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    verdict = "no difference" if passed else "DIFFERENCES FOUND"
    print(f"{len(files)} files, {time.perf_counter() - began:.0f} s: {verdict}")
    return 0 if passed else 1


def _files(folder: Path, wanted: list[str] | None) -> list[TraceFile]:
    if not folder.is_dir():
        raise TraceError(f"{str(folder)!r} is not a folder")
    files = {path.stem: TraceFile(path) for path in sorted(folder.glob("*.npz"))}
    if not files:
        raise TraceError(f"{str(folder)!r} holds no .npz files")
    for name in wanted or ():
        if name not in files:
            close = difflib.get_close_matches(name, files, n=3) or sorted(files)
            raise TraceError(f"{str(folder)!r} holds no {name}.npz; nearest: {', '.join(close)}")
    return [files[name] for name in (dict.fromkeys(wanted) if wanted else files)]


def _line(result: Result) -> str:
    name = f"{result.family} ({result.mode})" if result.mode else result.family
    verdict = "ok" if result.passed else "DIFFERS"
    if result.not_replayed:
        verdict = "NOT REPLAYED: " + ", ".join(result.not_replayed)
    elif result.episodes == 0:
        verdict = "NOT REPLAYED: holds no episodes"
    return _row(
        (
            name,
            str(result.episodes),
            str(result.transitions),
            str(result.obs),
            str(result.rewards),
            f"{result.largest_reward_difference:.0e}",
            str(result.terminated),
            str(result.truncated),
            verdict,
        )
    )


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:46s}" + "".join(f"{cell:>12s}" for cell in cells[1:-1]) + f"  {cells[-1]}"
