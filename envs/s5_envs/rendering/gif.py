"""Animations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def save_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float = 8.0) -> Path:
    """Write frames as an endlessly repeating animated GIF.

    Args:
        frames: ``(height, width, 3)`` uint8 each, all of one size.
        path: where to write; folders are made as needed.
        fps: frames a second. GIF times frames in hundredths of a second, browsers want two at least.

    Returns:
        the path.

    Raises:
        ValueError: without frames, or for frames of different sizes or another type, or fps out of (0, 50].
    """
    if not 0 < fps <= 50:
        raise ValueError(f"save_gif: fps must be above 0 and at most 50, got {fps!r}")
    pictures: list[Image.Image] = []
    for i, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise ValueError(
                f"save_gif: frame {i} must be (height, width, 3) uint8, got {frame.shape} {frame.dtype}"
            )
        if pictures and frame.shape[1::-1] != pictures[0].size:
            size, first = frame.shape[1::-1], pictures[0].size
            raise ValueError(f"save_gif: frame {i} is {size}, the first one {first} pixels (width, height)")
        pictures.append(Image.fromarray(frame).quantize(64, dither=Image.Dither.NONE))
    if not pictures:
        raise ValueError("save_gif: no frames")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        path, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps, -1), loop=0
    )
    return path
