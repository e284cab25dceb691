import jax
import numpy as np
import pytest

from s5_adapters.purejax import Evaluator, build_problem
from s5_adapters.purejax.evaluate import _reset, act
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import small_config


@pytest.fixture(scope="module")
def problem_and_params():
    problem = build_problem(small_config(env_id="HiddenBit", env_kwargs={"length": 5}))
    return problem, problem.net.init(jax.random.key(0))


@pytest.mark.parametrize("episodes", [1, 65])
def test_as_many_whole_episodes_as_asked_for(problem_and_params, episodes):
    problem, params = problem_and_params
    result = Evaluator(problem, episodes)(params, None, jax.random.key(0))
    assert result.returns.shape == (episodes,)
    assert (result.lengths == 5).all()
    assert set(result.returns) <= {0.0, 5.0}
    if episodes > 1:
        assert 1 < result.mean < 4
        assert result.standard_error == pytest.approx(result.returns.std(ddof=1) / episodes**0.5)
    else:
        assert np.isnan(result.standard_error)


def test_the_key_alone_decides(problem_and_params):
    problem, params = problem_and_params
    evaluator = Evaluator(problem, 65)
    one, again, other = (evaluator(params, None, jax.random.key(seed)).returns for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_no_episodes_are_refused(problem_and_params):
    with pytest.raises(ValueError, match="num_episodes: got 0, expected an integer >= 1"):
        Evaluator(problem_and_params[0], 0)


@pytest.mark.parametrize("resets", [True, False])
def test_without_resets_the_memory_is_full_of_an_episode_that_is_not_counted(resets):
    problem = build_problem(small_config(env_id="HiddenBit", env_kwargs={"length": 5}, resets=resets))
    params = problem.net.init(jax.random.key(0))
    returns = Evaluator(problem, 3)(params, None, jax.random.key(1)).returns
    by_hand, loop = [], _reset(problem, (1, 1, 1), jax.random.key(1))
    for _ in range(10):
        key, memory_state, env = act(problem, False, loop, problem.net.prepare(params), None)
        by_hand.append(env.reward)
        loop = loop._replace(
            env_state=env.state,
            obs=env.obs,
            memory_state=memory_state,
            key=key,
            episode_starts=env.terminated | env.truncated,
        )
    counted = by_hand[:5] if resets else by_hand[5:]
    np.testing.assert_array_equal(returns, np.sum(counted, axis=0))
