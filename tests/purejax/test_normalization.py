import jax
import numpy as np

from s5_adapters.purejax.normalization import CLIP, init_stats, normalize, scale, update_stats


def test_statistics_are_those_of_everything_seen():
    rng = np.random.default_rng(0)
    batches = [rng.normal(100, 3, (n, 2)) for n in (1, 7, 32, 32)]
    stats = init_stats((2,))
    for batch in batches:
        stats = jax.jit(update_stats)(stats, batch.astype(np.float32))
    seen = np.concatenate(batches)
    np.testing.assert_allclose(stats.mean, seen.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.variance, seen.var(axis=0), rtol=1e-4)
    assert stats.samples == 72
    normal = np.asarray(normalize(stats, seen.astype(np.float32)))
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=0), 1, rtol=1e-3)


def test_no_samples_change_nothing_and_extremes_are_clipped():
    stats = init_stats((1,))
    np.testing.assert_array_equal(normalize(stats, np.array([[0.5], [1e6]], np.float32)), [[0.5], [CLIP]])
    np.testing.assert_array_equal(scale(init_stats(()), np.array([-0.5, -1e6], np.float32)), [-0.5, -CLIP])


def test_whole_numbers_are_taken_too():
    stats = update_stats(init_stats((1,)), np.array([[0], [255]], np.uint8))
    np.testing.assert_allclose(stats.mean, [127.5])
