"""Arrays that travel together: `s5_adapters.torch_bridge.packed`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s5_adapters.torch_bridge.packed import JOINED_NUMBERS, PackedJit, join, unjoin


def test_packed_arguments_and_results_come_apart_again_at_every_shape() -> None:
    @PackedJit
    def both(held: jax.Array, x: jax.Array, rest: tuple[jax.Array]) -> Any:
        return {"scaled": held * x, "same": (x, x), "sum": rest[0].sum()}

    for shape in ((3, 2), (5, 2), (2, 3), (3, 2)):
        x, rest = torch.rand(shape), torch.rand(4)
        parts = both(jnp.float32(2.0), x, (rest,))
        torch.testing.assert_close(parts["scaled"], 2 * x)
        torch.testing.assert_close(parts["same"][0], x)
        assert parts["same"][0] is parts["same"][1]
        torch.testing.assert_close(parts["sum"], rest.sum())
        x.fill_(-1.0)
        assert (parts["same"][0] >= 0).all()


def test_packed_arguments_are_never_narrowed() -> None:
    with pytest.raises(TypeError, match="an observation or a state is float64"):
        PackedJit(lambda held, x: x)((), torch.zeros(2, dtype=torch.float64))
    two = PackedJit(lambda held, x, y: (x, y))
    two((), torch.zeros(2), torch.zeros(2))
    with pytest.raises(TypeError, match="an observation or a state is float64"):
        two((), torch.zeros(2), torch.zeros(2, dtype=torch.float64))


def test_calls_in_threads_do_not_mix_their_arguments() -> None:
    add = PackedJit(lambda held, x, y: x + y)
    add((), torch.zeros(64), torch.zeros(64))

    def sums_are_right(i: int) -> bool:
        x = torch.full((64,), float(i))
        return all(bool((add((), x, x) == 2 * i).all()) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(sums_are_right, range(8)))


def test_half_precision_goes_the_long_way() -> None:
    x = torch.rand(3, 2).to(torch.bfloat16)
    double = PackedJit(lambda held, x: x * 2)
    torch.testing.assert_close(double((), x), x * 2)


def test_a_call_never_writes_to_what_an_earlier_one_returned() -> None:
    add = PackedJit(lambda held, x: x + held)
    first = add(jnp.float32(1.0), torch.zeros(4))
    add(jnp.float32(2.0), torch.zeros(4))
    torch.testing.assert_close(first, torch.ones(4))


def test_joined_arrays_come_apart_again() -> None:
    key = jax.random.key(0)
    tree = {
        "matrix": jax.random.normal(key, (JOINED_NUMBERS, 2)),
        "vectors": [jax.random.normal(key, (n,)) for n in (1, 7, JOINED_NUMBERS)],
        "scalar": jnp.float32(3.0),
        "nothing": (),
    }
    joined = jax.jit(join)(tree)
    assert [x.shape for x in joined.large] == [(JOINED_NUMBERS, 2)]
    again = jax.jit(unjoin)(joined)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_one_program_serves_every_version_of_the_parameters() -> None:
    traced = []

    def scaled(held: Any, x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return unjoin(held)["w"] * x

    prepare, program = jax.jit(join), PackedJit(scaled)
    for value in (1.0, 2.0):
        held = prepare({"w": jnp.full(3, value)})
        torch.testing.assert_close(program(held, torch.ones(3)), torch.full((3,), value))
    assert traced == [(3,)]
