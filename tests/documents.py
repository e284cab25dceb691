"""The Python blocks of a page of docs/, and running them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs"


def python_blocks(page: str) -> list[str]:
    """Return the page's fenced Python blocks, from top to bottom."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def run_small(page: str, sizes: dict[str, str]) -> dict[str, Any]:
    """Run a page's blocks one after another, with smaller sizes in place of the page's.

    Args:
        page: a file of docs/.
        sizes: texts of the page and what stands in their place; each must occur.

    Returns:
        the names that the blocks leave.
    """
    source = "\n".join(python_blocks(page))
    for text, small in sizes.items():
        assert text in source, f"{page} no longer says {text}"
        source = source.replace(text, small)
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(source, page, "exec", dont_inherit=True), names)
    return names
