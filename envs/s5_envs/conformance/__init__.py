"""Replay recorded episodes of the numpy references through the environments; count the differences.

python -m s5_envs.conformance FOLDER_OF_TRACES [--family repeat_previous ...]
"""

from s5_envs.conformance.cli import main
from s5_envs.conformance.replay import Result, replay_file
from s5_envs.conformance.traces import TraceError, TraceFile

__all__ = ["Result", "TraceError", "TraceFile", "main", "replay_file"]
