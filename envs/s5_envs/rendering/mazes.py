"""Labyrinths."""

from __future__ import annotations

from s5_envs.popgym import labyrinth
from s5_envs.rendering.boards import unpack
from s5_envs.rendering.registry import renders
from s5_envs.rendering.scenes import BLUE, CARD, DARK, GREEN, RED, YELLOW, Tile, Tiles

_WALL = Tile("██", DARK, drawn="")
_FREE = Tile("  ", CARD, drawn="")
_VISITED = Tile("··", YELLOW, drawn="")
_START = Tile("S ", GREEN, CARD, drawn="S")
_GOAL = Tile("G ", RED, CARD, drawn="G")
_AGENT = Tile("@ ", BLUE, CARD, drawn="@")


@renders(labyrinth.Labyrinth)
def _labyrinth(env: labyrinth.Labyrinth, state: labyrinth.State) -> Tiles:
    side = env.size + 1
    walls, visited = unpack(state.layout.walls, side), unpack(state.visited, side)
    rows = [
        [_WALL if walls[y, x] else _VISITED if visited[y, x] else _FREE for x in range(side)]
        for y in range(side)
    ]
    places = [(state.layout.start, _START), (state.layout.goal, _GOAL), (state.position, _AGENT)]
    for (y, x), tile in places:
        if y >= 0:
            rows[y][x] = tile
    found = f"{int(state.n_found)} of {int(state.n_free)} squares"
    return Tiles(
        f"{env.name}: step {int(state.time)}, {found}",
        tuple(tuple(row) for row in rows),
        is_tight=True,
    )
