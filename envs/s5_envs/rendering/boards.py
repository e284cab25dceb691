"""Boards of squares, and the row of bandits."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from s5_envs.popgym import battleship, minesweeper, multiarmed_bandit
from s5_envs.rendering.registry import renders
from s5_envs.rendering.scenes import BLUE, CARD, DARK, GREEN, INK, PALE, RED, YELLOW, Tile, Tiles


def unpack(rows: ArrayLike, columns: int) -> np.ndarray:
    """Unpack rows of bits, ``(H,)`` uint32, into ``(H, columns)`` bool."""
    bits: np.ndarray = np.asarray(rows)[:, None] >> np.arange(columns, dtype=np.uint32)
    return (bits & 1).astype(bool)


@renders(battleship.Battleship)
def _battleship(env: battleship.Battleship, state: battleship.State) -> Tiles:
    n = env.board_size
    ships, guesses = unpack(state.ships, n), unpack(state.guesses, n)
    kinds = {
        (False, False): Tile(".", CARD, PALE),
        (True, False): Tile("s", PALE, DARK),
        (False, True): Tile("o", BLUE, CARD),
        (True, True): Tile("x", RED, CARD),
    }
    rows = tuple(tuple(kinds[bool(ships[y, x]), bool(guesses[y, x])] for x in range(n)) for y in range(n))
    found = f"{int(state.hits)} of {env.num_ship_squares} found"
    return Tiles(f"{env.name}: {found} after {int(state.time)} of {env.episode_length} shots", rows)


@renders(minesweeper.MineSweeper)
def _minesweeper(env: minesweeper.MineSweeper, state: minesweeper.State) -> Tiles:
    height, width = env.dims
    mines, viewed = unpack(state.mines, width), unpack(state.viewed, width)
    padded = np.pad(mines.astype(int), 1)
    clues = np.sum([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)

    def tile(y: int, x: int) -> Tile:
        if mines[y, x]:
            return Tile("*", PALE, RED)
        return Tile(str(clues[y, x]), GREEN, CARD) if viewed[y, x] else Tile(".", CARD, PALE)

    rows = tuple(tuple(tile(y, x) for x in range(width)) for y in range(height))
    cleared = f"{int(viewed.sum())} of {env.episode_length} cleared"
    return Tiles(f"{env.name}: {cleared}, last clue {int(state.clue)}", rows)


@renders(multiarmed_bandit.MultiarmedBandit)
def _multiarmed_bandit(env: multiarmed_bandit.MultiarmedBandit, state: multiarmed_bandit.State) -> Tiles:
    best = state.bandits.max()

    def tile(chance: float) -> Tile:
        if chance < 0:
            return Tile("?", PALE, DARK)
        return Tile(f".{min(int(100 * chance), 99):02d}", YELLOW if chance == best else CARD, INK)

    tiles = [tile(chance) for chance in state.bandits.tolist()]
    rows = tuple(tuple(tiles[i : i + 10]) for i in range(0, len(tiles), 10))
    last = ("no pull yet" if state.time == 0 else "paid" if state.paid else "nothing") + ","
    return Tiles(f"{env.name}: {last} {int(state.time)} of {env.episode_length} pulls", rows)
