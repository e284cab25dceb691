"""Pictures of states, as text and as pixels: one small function a family says what there is to see.

That function returns a scene, ``Tiles`` or ``Sketch``, and scenes know how to become a string or an image.
What is hidden from the player is shown: the pictures are for people who watch one.
"""

from s5_envs.rendering.gif import save_gif
from s5_envs.rendering.registry import describe, render_state, renders
from s5_envs.rendering.scenes import Sketch, Tile, Tiles

__all__ = ["Sketch", "Tile", "Tiles", "describe", "render_state", "renders", "save_gif"]
