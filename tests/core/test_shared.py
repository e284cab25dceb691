"""Programs live as long as something holds them: `s5_adapters.core.xla.shared`."""

import copy
import gc
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Discrete
from s5_adapters.core.files.weights import Policy
from s5_adapters.core.xla.shared import Shared


class Program(Shared):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.run = jax.jit(lambda x: jnp.sin(x) * width)


class Other(Shared):
    pass


def live() -> int:
    gc.collect()
    return len(jax.local_devices(backend="cpu")[0].client.live_executables())


def test_equal_keys_give_one_object_while_it_is_held() -> None:
    first = Program.of(3)
    assert Program.of(3) is first
    assert Program.of(4) is not first
    assert Other.of(3) is not first
    assert copy.deepcopy(first) is first
    assert pickle.loads(pickle.dumps(first)) is first


def test_what_was_compiled_goes_with_the_last_that_held_it() -> None:
    before = live()
    programs = [Program.of(5), Program.of(5), Program.of(6)]
    while_held = [program.run(np.ones(7, np.float32)) for program in programs]
    assert len(while_held) == 3
    assert live() == before + 2
    programs.pop(0)
    assert live() == before + 2
    programs.clear()
    assert live() == before
    assert float(Program.of(5).run(np.zeros(7, np.float32))[0]) == 0


def test_what_the_host_compiled_stays() -> None:
    traces = []

    @jax.jit
    def hosts(x: jax.Array) -> jax.Array:
        traces.append(x.shape)
        return x + 1

    hosts(np.ones(3, np.float32))
    Program.of(7).run(np.ones(3, np.float32))
    gc.collect()
    Program.of(8).run(np.ones(3, np.float32))  # made after another has gone: traces are dropped
    hosts(np.ones(3, np.float32))
    assert len(traces) == 1


def policy(width: int) -> Policy:
    config = ActorCriticConfig(
        obs_shape=(3,),
        action=Discrete(2),
        memory_config={"d_model": width, "d_state": 8, "n_layers": 1},
        encoder=(),
        actor_torso=(),
        critic_torso=(),
    )
    return Policy(config, jax.tree.map(np.array, ActorCritic(config).init(jax.random.key(0))))


def test_policies_of_one_architecture_share_their_programs_and_leave_none_behind() -> None:
    def act(made: Policy) -> None:
        made.act(np.ones((2, 3), np.float32), made.initial_state(2), np.ones(2, bool))

    first = policy(8)
    act(first)
    held = live()
    second = policy(8)
    act(second)
    assert live() == held
    act(third := policy(10))
    assert live() > held
    del third
    assert live() == held


def test_a_policys_parameters_cannot_be_written_behind_its_back() -> None:
    given = policy(8)
    leaf = given.params["trunk"]["encoder"] or given.params["trunk"]["memory"]
    first = jax.tree.leaves(leaf)[0]
    with pytest.raises(ValueError, match="read-only"):
        first[...] = 0
    source = jax.tree.map(np.array, given.params)
    made = Policy(given.config, source)
    jax.tree.leaves(source)[0][...] = np.nan
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.params))
