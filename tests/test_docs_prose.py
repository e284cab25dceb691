"""The prose of the README, of CONTRIBUTING.md and of docs/ has at most 100 columns."""

import re

import pytest

from tests.documents import CHECKOUT, DOCS

COLUMNS = 100
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(CHECKOUT)) for p in DOCS.rglob("*.md"))]
# What cannot be wrapped: rows of tables, headings, entries of the API reference, and lines of one link alone.
UNWRAPPED = re.compile(r"\s*(\||#|:::|([-*] )?!?\[[^\]]*\]\([^)\s]*\)[.,;:]?$)")


def too_long(text: str) -> list[str]:
    """Return the lines of prose that are longer; what stands in code fences is not prose."""
    found, in_code = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*(```|~~~)", line):
            in_code = not in_code
        elif not in_code and len(line) > COLUMNS and not UNWRAPPED.match(line):
            found.append(f"{number}: {line}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_prose_has_at_most_100_columns(page: str) -> None:
    assert too_long((CHECKOUT / page).read_text()) == []


def test_long_prose_is_found_and_what_cannot_be_wrapped_is_left() -> None:
    long = "word " * 30
    link = f"[{long}](page.md)"
    page = (
        f"{long}\n- {long}\n```sh\n{long}\n```\n| {long} |\n# {long}\n{link}\n- {link}.\n{link} and {long}\n"
    )
    assert [line.split(":")[0] for line in too_long(page)] == ["1", "2", "10"]
