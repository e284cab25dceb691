"""Shuffled decks without a shuffle.

The reference shuffles a deck and deals from its end. What a player can see of that is the sequence of the
cards' classes (suits, ranks or colours), and its distribution is the same when each card is drawn as it is
dealt: class c with probability (cards of class c left) / (cards left). So a deck is the number of cards of
each class that are left, dealing costs O(classes), and a fresh deck is a constant.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from s5_envs.draws import uniform_int

DECK_SIZE = 52
NUM_SUITS = 4
NUM_RANKS = 13
CLASSES = {"colors": 2, "suits": NUM_SUITS, "ranks": NUM_RANKS}


def fresh_deck(num_decks: int, num_classes: int) -> jax.Array:
    """Return a full deck: ``(num_classes,)`` int32, cards of each class."""
    return jnp.full((num_classes,), num_decks * DECK_SIZE // num_classes, jnp.int32)


def draw_card(word: jax.Array, deck: jax.Array) -> jax.Array:
    """Draw the class of the next card, int32; class 0 from an empty deck.

    Args:
        word: () uint32.
        deck: ``(num_classes,)`` int32, cards left of each class.
    """
    position = uniform_int(word, deck.sum())
    # Unrolled: a cumulative sum of a dozen numbers is a kernel of its own, comparisons fuse.
    card: jax.Array = jnp.int32(0)
    below: jax.Array = jnp.int32(0)
    for c in range(deck.shape[0] - 1):
        below = below + deck[c]
        card = card + (position >= below)
    return card


def remove_card(deck: jax.Array, card: jax.Array) -> jax.Array:
    """Return the deck without one card of class ``card``."""
    return deck - (jnp.arange(deck.shape[0]) == card)


def check_deck_type(name: str, deck_type: str, allowed: tuple[str, ...] = tuple(CLASSES)) -> None:
    """Raise ValueError unless ``deck_type`` is one of ``allowed``."""
    if deck_type not in allowed:
        raise ValueError(f"{name}: deck_type must be one of {', '.join(allowed)}; got {deck_type!r}")


def check_num_decks(name: str, num_decks: int) -> None:
    """Raise ValueError unless ``num_decks`` decks can be dealt."""
    if not isinstance(num_decks, int) or not 1 <= num_decks <= 256:
        raise ValueError(f"{name}: num_decks must be an integer in [1, 256], got {num_decks!r}")
