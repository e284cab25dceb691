from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from s5_adapters.purejax.checkpoint import Checkpoints
from tests.purejax.helpers import assert_same_bits


class Anything(NamedTuple):
    params: dict[str, Any]
    key: jax.Array
    keys: jax.Array
    nothing: None
    flags: jax.Array
    empty: jax.Array
    count: jax.Array


@pytest.fixture
def state():
    return Anything(
        params={"layer": {"kernel": jnp.arange(12.0).reshape(3, 4) / 7}},
        key=jax.random.key(3),
        keys=jax.random.split(jax.random.key(1), 4),
        nothing=None,
        flags=jnp.array([True, False]),
        empty=jnp.zeros((0, 3)),
        count=jnp.int32(7),
    )


def test_every_bit_comes_back(tmp_path, state):
    Checkpoints(tmp_path / "c").save(5, state)
    assert_same_bits(Checkpoints(tmp_path / "c").restore(jax.eval_shape(lambda: state)), state)


def test_the_last_few_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.latest() is None
    for update in (0, 9, 10, 11):
        checkpoints.save(update, state)
    checkpoints.save(11, state)
    assert checkpoints.updates() == [10, 11]
    assert checkpoints.latest() == 11
    assert_same_bits(checkpoints.restore(state, 10), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kernel": jnp.zeros((3, 5))},
            r"params\.layer\.kernel is float32\[3, 4\], expected float32\[3, 5\]",
        ),
        (
            {"kernel": jnp.zeros((3, 4), int)},
            r"params\.layer\.kernel is float32\[3, 4\], expected int32\[3, 4\]",
        ),
        ({"weights": jnp.zeros((3, 4))}, r"params\.layer\.kernel is float32\[3, 4\], expected no such array"),
        ({"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}, r"params\.layer\.bias is missing, expected"),
    ],
)
def test_another_shape_is_refused_in_one_line(tmp_path, state, change, message):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state)
    with pytest.raises(
        ValueError, match=rf"^\S+c/1: a checkpoint of another configuration: {message}[^\n]*$"
    ):
        checkpoints.restore(state._replace(params={"layer": change}))


def test_what_is_not_there_is_said(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(ValueError, match="no checkpoint there"):
        checkpoints.restore(state)
    checkpoints.save(1, state)
    with pytest.raises(ValueError, match=r"no checkpoint 2, expected one of \[1\]"):
        checkpoints.restore(state, 2)


def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c")
    folder = checkpoints.save(1, state)
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match=r"^\S+c/1: not a readable checkpoint: [^\n]+$"):
        checkpoints.restore(state)
