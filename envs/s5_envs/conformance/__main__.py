"""``python -m s5_envs.conformance``."""

import sys

from s5_envs.conformance.cli import main

sys.exit(main())
