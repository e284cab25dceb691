"""A job that notes its process and then waits for other jobs, in vain for long: for the tests of sweeps."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5_adapters.sweeps.machine import usable_cores
from s5_adapters.sweeps.processes import job_main


def run(description: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    Path(description["file"]).write_text(str(os.getpid()))
    end = time.monotonic() + 120
    while time.monotonic() < end and not Path(description["until"]).exists():
        time.sleep(0.05)
    return {"met": Path(description["until"]).exists(), "cores": usable_cores()}


if __name__ == "__main__":
    sys.exit(job_main(run))
