"""Cases that only `make test-slow` runs."""

from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """Mark cases of `pytest.mark.parametrize` as slow: those whose like every run of the tests has already.

    Args:
        *cases: a value each, or a tuple of values where there are several arguments.
    """
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*each, marks=pytest.mark.slow) for each in values]
