"""What the environments leave to chance has the distribution of the reference's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import draws
from s5_envs.popgym import bitboard
from s5_envs.popgym.cards import draw_card, fresh_deck, remove_card
from tests.envs.reference import REFERENCES

SIGMAS = 5.0  # a sound test fails once in two million comparisons


def _assert_same_rates(counts: np.ndarray, n: int, expected: np.ndarray | float, m: float = np.inf) -> None:
    """Compare rates from ``n`` samples with known ones, or with ones that ``m`` samples gave."""
    rates, expected = counts / n, np.broadcast_to(expected, np.shape(counts))
    spread = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) * (1 / n + 1 / m))
    worst = np.abs(rates - expected) / spread
    assert worst.max() < SIGMAS, (rates, expected)


@pytest.mark.parametrize("n", [1, 3, 52, 832, 65535])
def test_uniform_int(n: int) -> None:
    words = jax.random.bits(jax.random.key(n), (200_000,))
    values = np.asarray(draws.uniform_int(words, n))
    assert values.min() >= 0
    assert values.max() < n
    assert int(draws.uniform_int(jnp.uint32(0xFFFFFFFF), n)) == n - 1
    expected = [np.floor(int(w) * n / 2**32) for w in np.asarray(words[:500])]
    np.testing.assert_array_equal(values[:500], expected)


def test_uniform_and_normal() -> None:
    words = jax.random.bits(jax.random.key(0), (400_000,))
    uniform, normal = np.asarray(draws.uniform(words)), np.asarray(draws.normal(words), np.float64)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < SIGMAS / np.sqrt(12 * len(uniform))
    assert abs(normal.mean()) < SIGMAS / np.sqrt(len(normal))
    assert abs(normal.var() - 1) < SIGMAS * np.sqrt(2 / len(normal))
    assert abs((normal**4).mean() - 3) < SIGMAS * np.sqrt(96 / len(normal))
    extremes = draws.normal(jnp.array([0, 0xFFFFFFFF], jnp.uint32))
    assert np.isfinite(extremes).all()
    assert extremes[0] == -extremes[1]


def test_decks_are_dealt_as_if_shuffled() -> None:
    """Every order of a deck of classes a, a, b, b, b is equally likely."""
    deck = jnp.array([2, 3], jnp.int32)

    def deal(words: jax.Array) -> jax.Array:
        def step(deck: jax.Array, word: jax.Array) -> Any:
            card = draw_card(word, deck)
            return remove_card(deck, card), card

        return jax.lax.scan(step, deck, words)[1]

    n = 50_000
    orders = np.asarray(jax.jit(jax.vmap(deal))(jax.random.bits(jax.random.key(1), (n, 5))))
    assert (orders.sum(1) == 3).all()
    counts = np.bincount(orders @ (2 ** np.arange(5)), minlength=32)
    _assert_same_rates(counts[counts > 0], n, 1 / 10)
    assert (counts > 0).sum() == 10


@pytest.mark.parametrize(("env_id", "classes"), [("RepeatPreviousEasy", 4), ("HigherLowerEasy", 13)])
def test_an_episode_deals_the_whole_deck(env_id: str, classes: int) -> None:
    env, params = s5_envs.make(env_id)
    n = 2000

    @jax.jit
    @jax.vmap
    def episode(key: jax.Array) -> jax.Array:
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def step(state: Any, key: jax.Array) -> Any:
            _, state, _, _, _, info = env.step(key, state, 0, params)
            return state, info["final_observation"]

        # The second episode, which an automatic reset began.
        keys = jax.random.split(key_steps, 2 * env.episode_length)
        state, _ = jax.lax.scan(step, state, keys[: env.episode_length])
        first = env.get_obs(state)
        return jnp.concatenate([first[None], jax.lax.scan(step, state, keys[env.episode_length :])[1]])

    cards = np.asarray(episode(jax.random.split(jax.random.key(3), n))).argmax(-1)
    assert (np.stack([(cards == c).sum(1) for c in range(classes)]) == 52 // classes).all()
    for place in (0, 1, 25, 51):
        _assert_same_rates(np.bincount(cards[:, place], minlength=classes), n, 1 / classes)
    _assert_same_rates((cards[:, 0] == cards[:, 1]).sum(), n, (52 // classes - 1) / 51)
    _assert_same_rates((cards[:, 20] == cards[:, 40]).sum(), n, (52 // classes - 1) / 51)


@pytest.mark.parametrize("variant", ["Easy", "Hard"])
@pytest.mark.parametrize("restarted", [False, True])
def test_ships_lie_as_in_the_reference(variant: str, restarted: bool) -> None:
    theirs = REFERENCES["battleship"].build("battleship", variant)
    m = 2000
    reference = np.stack([(theirs.reset(seed=seed), theirs.board)[1] for seed in range(m)])
    env, params = s5_envs.make(f"Battleship{variant}", previous_action=False)
    n = 10_000

    @jax.jit
    @jax.vmap
    def board(key: jax.Array) -> jax.Array:
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)
        if restarted:
            # Ships of the episode after one of three steps: some placed on the way, the rest at its end.
            limited = params.replace(max_steps_in_episode=3)
            for key in jax.random.split(key_steps, 3):
                _, state, *_ = env.step(key, state, jnp.array([0, 0]), limited)
        return bitboard.unpack(state.ships, env.board_size)

    boards = np.asarray(board(jax.random.split(jax.random.key(4), n)))
    assert (boards.sum((1, 2)) == 12).all()
    _assert_same_rates(boards.sum(0), n, reference.mean(0), m)
    for dy, dx in ((1, 0), (0, 1), (1, 1), (3, 0)):
        # How many pairs of ship squares lie this far apart.
        ours, expected = (
            (x[:, dy:, dx:] * x[:, : x.shape[1] - dy, : x.shape[2] - dx]).sum((1, 2))
            for x in (boards.astype(int), reference.astype(int))
        )
        spread = np.sqrt(ours.var() / n + expected.var() / m)
        assert abs(ours.mean() - expected.mean()) < SIGMAS * spread


def test_mines_are_a_uniform_subset() -> None:
    env, params = s5_envs.make("MineSweeperMedium", previous_action=False)
    n = 20_000
    words = jax.random.bits(jax.random.key(5), (n, env.deal_words))
    mines = jax.vmap(lambda w: bitboard.unpack(env.deal(w, params), 6))(words)
    flat = np.asarray(mines).reshape(n, 36)
    assert (flat.sum(1) == 6).all()
    _assert_same_rates(flat.sum(0), n, 6 / 36)
    together = flat.T.astype(int) @ flat.astype(int)
    _assert_same_rates(together[~np.eye(36, dtype=bool)], n, 6 * 5 / (36 * 35))


def test_cards_on_the_table_are_a_shuffled_deck() -> None:
    env, params = s5_envs.make("ConcentrationHard", previous_action=False)
    n = 4000

    @jax.jit
    @jax.vmap
    def cards(key: jax.Array) -> jax.Array:
        _, state = env.reset(key, params)

        def step(state: Any, now: Any) -> Any:
            key, action = now
            _, state, *_ = env.step_env(key, state, action, params)
            return state, None

        # Whatever is turned over, and in whatever order, with some cards seen twice.
        order = jnp.concatenate([jnp.arange(0, 52, 2), jnp.arange(51, 0, -2), jnp.arange(52)])
        return jax.lax.scan(step, state, (jax.random.split(key, 104), order))[0].cards

    table = np.asarray(cards(jax.random.split(jax.random.key(6), n)))
    assert (np.stack([(table == rank).sum(1) for rank in range(13)]) == 4).all()
    for place in (0, 1, 30, 51):
        _assert_same_rates(np.bincount(table[:, place], minlength=13), n, 1 / 13)
    _assert_same_rates((table[:, 0] == table[:, 51]).sum(), n, 3 / 51)


def test_bandits_pay_with_uniform_and_lasting_probabilities() -> None:
    env, params = s5_envs.make("MultiarmedBanditEasy", previous_action=False)
    n = 4000

    @jax.jit
    @jax.vmap
    def pulls(key: jax.Array) -> Any:
        _, state = env.reset(key, params)

        def step(state: Any, key: jax.Array) -> Any:
            _, state, reward, _, _ = env.step_env(key, state, 3, params)
            return state, reward > 0

        state, paid = jax.lax.scan(step, state, jax.random.split(key, 100))
        return state.bandits, paid

    bandits, paid = jax.tree.map(np.asarray, pulls(jax.random.split(jax.random.key(8), n)))
    assert (bandits[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]] == -1).all(), "what was never pulled was never drawn"
    p = bandits[:, 3]
    _assert_same_rates(np.histogram(p, bins=10, range=(0, 1))[0], n, 0.1)
    errors = (paid.mean(1) - p) / np.sqrt(np.maximum(p * (1 - p), 1e-3) / 100)
    assert abs(errors.mean()) < SIGMAS / np.sqrt(n)
    assert 0.9 < errors.std() < 1.1


@pytest.mark.parametrize("env_id", ["NoisyPositionOnlyCartPoleHard", "NoisyPositionOnlyPendulumHard"])
def test_physics_begins_and_is_blurred_as_in_the_reference(env_id: str) -> None:
    env, params = s5_envs.make(env_id)
    n = 20_000
    words = jax.random.bits(jax.random.key(9), (n, env.deal_words))
    physics, noise = jax.tree.map(np.asarray, jax.vmap(lambda w: env.deal(w, params))(words))
    high = np.full(4, 0.05) if physics.shape[1] == 4 else np.array([np.pi, 1.0])
    for values, bound in zip(physics.T, high, strict=True):
        _assert_same_rates(np.histogram(values, bins=8, range=(-bound, bound))[0], n, 1 / 8)
    assert np.abs(noise.mean(0)).max() < SIGMAS * 0.3 / np.sqrt(n)
    np.testing.assert_allclose(noise.std(0), 0.3, rtol=SIGMAS / np.sqrt(2 * n))
    assert abs(np.corrcoef(noise.T)[0, 1]) < SIGMAS / np.sqrt(n)


def test_a_fresh_deck_is_full() -> None:
    for num_decks, classes in ((1, 2), (3, 4), (4, 13)):
        deck = fresh_deck(num_decks, classes)
        assert deck.shape == (classes,)
        assert int(deck.sum()) == 52 * num_decks
