"""Types of arrays with a dtype and named axes, in jaxtyping's notation: ``Float[Array, "T B F"]``.

A type checker reads them as the array alone, just as it reads jaxtyping's own names, which are ``Annotated``
too. They stand here so that no user needs jaxtyping for the core's types to mean anything. The tests have
jaxtyping hold them against calls (``tests/core/test_shapes.py``); docs/architecture.md lists the axes.
"""

from typing import Annotated as Bool
from typing import Annotated as Complex
from typing import Annotated as Float
from typing import Annotated as Inexact
from typing import Annotated as Int
from typing import Annotated as Shaped

__all__ = ["Bool", "Complex", "Float", "Inexact", "Int", "Shaped"]
