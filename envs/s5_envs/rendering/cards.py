"""Cards in hand and on the table, and the bits of MemoryChain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from s5_envs.memory_chain import MemoryChain
from s5_envs.memory_chain import State as MemoryChainState
from s5_envs.popgym import (
    autoencode,
    concentration,
    count_recall,
    higher_lower,
    repeat_first,
    repeat_previous,
)
from s5_envs.popgym.packed import PER_WORD
from s5_envs.rendering.registry import renders
from s5_envs.rendering.scenes import CARD, DARK, GREEN, INK, PALE, RED, YELLOW, Tile, Tiles

SUITS = "♠♦♣♥"
RANKS = ("A", *map(str, range(2, 11)), "J", "Q", "K")
COLOURS = ("black", "red")
_IN_A_ROW = 13
BLANK = Tile("", PALE)
NOTHING = Tile("-", PALE, drawn="")
FACE_DOWN = Tile(".", (158, 176, 204), drawn="")


def suit_tile(suit: int, is_marked: bool = False) -> Tile:
    """Return a card of which the suit counts."""
    return Tile(SUITS[suit], CARD, RED if suit in (1, 3) else INK, is_marked)


def class_tile(value: int, num_classes: int, is_marked: bool = False) -> Tile:
    """Return a card of which the colour (2 classes), the suit (4) or the rank (13) counts."""
    if num_classes == len(SUITS):
        return suit_tile(value, is_marked)
    if num_classes == len(RANKS):
        return Tile(RANKS[value], CARD, INK, is_marked)
    return Tile(COLOURS[value][0], (INK, RED)[value], CARD, is_marked)


def _unpack(stack: ArrayLike, count: int) -> list[int]:
    """Read the top ``count`` suits of a packed stack, newest first."""
    places = 2 * np.arange(PER_WORD, dtype=np.uint32)
    suits = ((np.asarray(stack)[:, None] >> places) & 3).reshape(-1)[:count]
    return [int(suit) for suit in suits]


def _newest_last(suits: list[int]) -> tuple[Tile, ...]:
    """Return the newest cards of a list that has the newest first, in a row of fixed length."""
    tiles = [suit_tile(suit) for suit in suits[:_IN_A_ROW][::-1]]
    return (*[BLANK] * (_IN_A_ROW - len(tiles)), *tiles)


@renders(repeat_previous.RepeatPrevious)
def _repeat_previous(env: repeat_previous.RepeatPrevious, state: repeat_previous.State) -> Tiles:
    dealt = int(state.time) + 1
    cards = _unpack(state.cards, min(dealt, env.k))
    answer = suit_tile(cards[env.k - 1], True) if dealt >= env.k else NOTHING
    return Tiles(
        f"{env.name}, k = {env.k}: card {dealt} of {env.num_cards}",
        (_newest_last(cards), (answer,)),
        ("dealt, the last one on show", f"to name: the card dealt {env.k - 1} before"),
    )


@renders(repeat_first.RepeatFirst)
def _repeat_first(env: repeat_first.RepeatFirst, state: repeat_first.State) -> Tiles:
    return Tiles(
        f"{env.name}: card {int(state.time) + 1} of {env.num_cards}",
        ((suit_tile(int(state.card)),), (suit_tile(int(state.first), True),)),
        ("on show", "to name: the first card"),
    )


@renders(autoencode.Autoencode)
def _autoencode(env: autoencode.Autoencode, state: autoencode.State) -> Tiles:
    time = int(state.time)
    is_watching = time < env.num_cards - 1
    left = min(time + 1, 2 * env.num_cards - 1 - time)
    cards = _unpack(state.cards, left)
    return Tiles(
        f"{env.name}: {'watch' if is_watching else 'play'}, step {time} of {env.episode_length}",
        (_newest_last(cards), (suit_tile(cards[0], True) if cards and not is_watching else NOTHING,)),
        (f"{left} cards to recite, the last one first", "to name now"),
    )


@renders(count_recall.CountRecall)
def _count_recall(env: count_recall.CountRecall, state: count_recall.State) -> Tiles:
    each = env.num_cards // env.num_classes
    counts = each - state.deck
    return Tiles(
        f"{env.name}: card {int(state.time) + 1} of {env.num_cards}",
        (
            (
                class_tile(int(state.value), env.num_classes),
                class_tile(int(state.query), env.num_classes, True),
            ),
            tuple(Tile(str(count), CARD, INK, i == state.query) for i, count in enumerate(counts)),
        ),
        ("on show, and asked for", "how many of each have been dealt"),
    )


@renders(higher_lower.HigherLower)
def _higher_lower(env: higher_lower.HigherLower, state: higher_lower.State) -> Tiles:
    return Tiles(
        f"{env.name}: card {int(state.time) + 1} of {env.num_cards}",
        (
            tuple(Tile(rank, CARD, INK, i == state.rank) for i, rank in enumerate(RANKS)),
            tuple(Tile(str(left), CARD if left else PALE, DARK) for left in state.deck),
        ),
        ("rank on show", "left in the deck, of each rank"),
    )


@renders(concentration.Concentration)
def _concentration(env: concentration.Concentration, state: concentration.State) -> Tiles:
    shown = state.shown.tolist()
    is_up = state.paired | np.isin(np.arange(env.num_cards), shown)
    tiles = [
        class_tile(card, env.num_classes, place in shown) if is_up[place] else FACE_DOWN
        for place, card in enumerate(state.cards.tolist())
    ]
    rows = tuple(tuple(tiles[i : i + _IN_A_ROW]) for i in range(0, len(tiles), _IN_A_ROW))
    pairs = int(state.paired.sum()) // 2
    return Tiles(f"{env.name}: {pairs} pairs after {int(state.time)} of {env.episode_length} turns", rows)


@renders(MemoryChain)
def _memory_chain(env: MemoryChain, state: MemoryChainState) -> Tiles:
    time = int(state.time)
    is_shown, is_asked = time <= 1, time >= env.memory_length
    bits = tuple(
        Tile(str(bit), YELLOW if is_shown else PALE, INK, is_asked and i == state.query)
        for i, bit in enumerate(state.context.tolist())
    )
    wait = min(10 * time // env.memory_length, 10)
    bar = tuple(Tile("#" if i < wait else ".", GREEN if i < wait else PALE, drawn="") for i in range(10))
    what = "remember" if is_shown else "answer" if is_asked else "wait"
    labels = ("bits", f"step {time} of {env.episode_length}")
    return Tiles(f"{env.name}: {what}", (bits, bar), labels)
