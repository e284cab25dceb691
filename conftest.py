"""What every test process shares, set before any of jax, torch and numpy is imported."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# numpy and torch keep to one thread: sharing cores with JAX's threads can slow torch down hundreds of times.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
# Tests run on the CPU unless the caller chooses otherwise, and never take a whole GPU for themselves.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# JAX computes behind the caller's back, as it does by itself: the bridge must not race there either.
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "true")
# Most of a test's time is compiling: what took long is kept for the other processes and for the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Machine code in one piece: pieces in parallel cost a tenth more, and the other core has work already.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import pytest  # noqa: E402  (the environment comes first)
from hypothesis import HealthCheck, settings  # noqa: E402

# The first example of a property pays for compiling, so neither a deadline nor "too slow" says anything here.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same examples every time: a failure can be repeated, and no unlucky draw stops another change.
settings.register_profile(
    "ci", settings.get_profile("local"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile quickly, unless the module is marked `full_compilation`."""
    if request.node.get_closest_marker("full_compilation") is not None:
        yield
        return
    from tests.compilation import quick_compilation

    with quick_compilation():
        yield


@pytest.fixture(autouse=True, scope="module")
def _unload_compiled_programs() -> Iterator[None]:
    """Drop what a module compiled: XLA crashed compiling where one process held thousands of programs."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
