"""The two kinds of scenes: tiles in labelled rows (cards, boards, mazes), and a sketch (physics)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAPER: Colour = (250, 249, 246)
CARD: Colour = (255, 255, 255)
INK: Colour = (40, 44, 52)
RED: Colour = (192, 48, 48)
GREEN: Colour = (86, 160, 96)
BLUE: Colour = (70, 120, 190)
YELLOW: Colour = (244, 200, 80)
PALE: Colour = (226, 224, 218)
DARK: Colour = (92, 96, 106)

_WIDTH = 384  # pixels that a picture aims for
_MARGIN = 10
_TEXT_SIZE = 15
_LINE = 22


class Scene(Protocol):
    """The interface of every scene."""

    def to_text(self) -> str:
        """Return lines of text."""

    def to_image(self) -> np.ndarray:
        """Return ``(height, width, 3)`` uint8."""


@dataclass(frozen=True)
class Tile:
    """One square.

    Attributes:
        text: what it says, in text and in the picture.
        fill: its background in the picture.
        ink: the colour of its text in the picture.
        is_marked: framed in the picture, in brackets in text.
        drawn: what it says in the picture, where that differs.
    """

    text: str
    fill: Colour = CARD
    ink: Colour = INK
    is_marked: bool = False
    drawn: str | None = None


@dataclass(frozen=True)
class Tiles:
    """Rows of square tiles under a caption; the picture's size depends on their number alone.

    Attributes:
        caption: one line above.
        rows: the tiles, row by row.
        labels: one line above each row, or none at all.
        is_tight: in text, nothing between the tiles of a row.
    """

    caption: str
    rows: tuple[tuple[Tile, ...], ...]
    labels: tuple[str, ...] = ()
    is_tight: bool = False

    def to_text(self) -> str:
        """Return the caption and the rows, tiles padded to one width."""
        width = max(len(tile.text) for row in self.rows for tile in row)
        lines = [self.caption]
        for i, row in enumerate(self.rows):
            lines += [self.labels[i]] if self.labels else []
            if self.is_tight:
                lines.append("".join(tile.text.ljust(width) for tile in row))
            else:
                cells = (f"[{t.text:>{width}}]" if t.is_marked else f" {t.text:>{width}} " for t in row)
                lines.append("".join(cells).rstrip())
        return "\n".join(lines)

    def to_image(self) -> np.ndarray:
        """Return the picture, ``(height, width, 3)`` uint8."""
        columns = max(len(row) for row in self.rows)
        size = int(np.clip((_WIDTH - 2 * _MARGIN) // columns, 14, 44))
        step = size + (_LINE if self.labels else 0)
        image, draw = _sheet(max(_WIDTH, columns * size + 2 * _MARGIN), len(self.rows) * step)
        _write(draw, _MARGIN, _MARGIN, self.caption)
        top = _MARGIN + _LINE
        for i, row in enumerate(self.rows):
            if self.labels:
                _write(draw, _MARGIN, top, self.labels[i], DARK)
                top += _LINE
            for j, tile in enumerate(row):
                _draw_tile(draw, _MARGIN + j * size, top, size, tile)
            top += size
        return np.asarray(image)


@dataclass(frozen=True)
class Stroke:
    """A line through ``points``, or a disc where there is one point; widths in the sketch's units."""

    points: tuple[Point, ...]
    width: float
    colour: Colour = INK


@dataclass(frozen=True)
class Sketch:
    """A drawing in its own units, x to the right and y up, with lines of text above.

    Attributes:
        caption: lines of text; their number sets the picture's height.
        strokes: drawn in order.
        low: the lower left corner of what is shown.
        high: the upper right corner.
        gauge: in text, a line that shows where something is.
    """

    caption: tuple[str, ...]
    strokes: tuple[Stroke, ...]
    low: Point
    high: Point
    gauge: str = field(default="")

    def to_text(self) -> str:
        """Return the caption and the gauge."""
        return "\n".join([*self.caption, self.gauge])

    def to_image(self) -> np.ndarray:
        """Return the picture, ``(height, width, 3)`` uint8."""
        scale = (_WIDTH - 2 * _MARGIN) / (self.high[0] - self.low[0])
        top = _MARGIN + len(self.caption) * _LINE
        image, draw = _sheet(_WIDTH, (self.high[1] - self.low[1]) * scale + top - _MARGIN - _LINE)
        for stroke in self.strokes:
            places = [
                (_MARGIN + (x - self.low[0]) * scale, top + (self.high[1] - y) * scale)
                for x, y in stroke.points
            ]
            width = max(2, round(stroke.width * scale))
            if len(places) == 1:
                ((x, y),) = places
                draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), stroke.colour)
            else:
                draw.line(places, stroke.colour, width)
        for i, line in enumerate(self.caption):
            _write(draw, _MARGIN, _MARGIN + i * _LINE, line)
        return np.asarray(image)


def _sheet(width: float, body: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty picture with room for a line of text above the body."""
    image = Image.new("RGB", (round(width), round(body) + _LINE + 2 * _MARGIN), PAPER)
    return image, ImageDraw.Draw(image)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib brings a font that has the suits of cards.
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, ink: Colour = INK) -> None:
    draw.text((x, y), text, ink, _font(_TEXT_SIZE))


def _draw_tile(draw: ImageDraw.ImageDraw, x: float, y: float, size: int, tile: Tile) -> None:
    frame, thick = (BLUE, 3) if tile.is_marked else (PALE, 1)
    draw.rectangle((x, y, x + size - 1, y + size - 1), tile.fill, frame, thick)
    text = tile.text if tile.drawn is None else tile.drawn
    if text.strip():
        font = _font(max(8, int(size * (0.5 if len(text) < 3 else 0.38))))
        draw.text((x + size / 2, y + size / 2), text, tile.ink, font, anchor="mm")
