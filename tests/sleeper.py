"""A job that notes its process and does nothing for long: for the test that it ends with its sweep."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5_adapters.sweeps.processes import job_main


def run(description: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    Path(description["file"]).write_text(str(os.getpid()))
    time.sleep(120)
    return {}


if __name__ == "__main__":
    sys.exit(job_main(run))
