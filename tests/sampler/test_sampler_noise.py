"""Keyed noise depends on (seed, sample, repeat, step) alone, and is standard normal, uniform and uncorrelated."""

import numpy as np
import pytest
import scipy.stats
import torch

from gaussian_test.sampler import KeyedNoise

STEPS = 3


def draws(samples, repeats=1, event=(5,), seed=0, dtype=torch.float32):
    noise = KeyedNoise(seed, samples, repeats, event, dtype=dtype)
    steps = [noise.draw() for _ in range(STEPS)]
    return torch.stack([step.normal for step in steps], 1), torch.stack([step.uniform for step in steps], 1)


@pytest.mark.parametrize(("group", "event"), [(1, (1,)), (7, (5,)), (64, (17,)), (1000, (2, 3, 4))])
def test_any_grouping_is_bit_identical(group, event):
    samples = list(range(300, 390))
    normal, uniform = draws(samples, 2, event)
    parts = [draws(samples[start : start + group], 2, event) for start in range(0, len(samples), group)]
    assert torch.equal(normal, torch.cat([part[0] for part in parts]))
    assert torch.equal(uniform, torch.cat([part[1] for part in parts]))


def test_any_order_and_any_subset_are_bit_identical():
    normal, uniform = draws(range(50))
    for chosen in (np.random.default_rng(0).permutation(50), np.array([49, 3, 3, 17], dtype=np.int32), [4, 9]):
        assert torch.equal(draws(chosen)[0], normal[chosen])
        assert torch.equal(draws(chosen)[1], uniform[chosen])


def test_more_repeats_keep_the_first_ones():
    few, many = draws(range(6), 2), draws(range(6), 5)
    for part, whole in zip(few, many, strict=True):
        assert torch.equal(part.reshape(6, 2, *part.shape[1:]), whole.reshape(6, 5, *whole.shape[1:])[:, :2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_that_is_used_up_gives_its_memory(dtype):
    expected, noise = draws(range(6), dtype=dtype), KeyedNoise(0, range(6), 1, (5,), dtype=dtype)
    first = noise.draw()
    step, before = first, first.normal.clone()
    for number in range(1, STEPS):
        step = noise.draw(step if number > 1 else None)
        assert torch.equal(step.normal, expected[0][:, number])
        assert torch.equal(step.uniform, expected[1][:, number])
    assert torch.equal(first.normal, before)  # which was not handed back
    assert (noise.draw(step).normal.data_ptr() == step.normal.data_ptr()) == (dtype == torch.float32)


@pytest.mark.parametrize("event", [(1,), (2, 3, 4)])
def test_float64_is_the_float32_draw(event):
    single, double = (KeyedNoise(0, [1, 2, 3], 2, event, dtype=dtype).draw() for dtype in (torch.float32, torch.float64))
    assert single.normal.shape == (6, *event)
    assert single.uniform.shape == (6,)
    assert single.second is None
    assert double.normal.dtype == single.uniform.dtype == torch.float64
    assert torch.equal(single.normal.double(), double.normal)
    assert torch.equal(single.uniform, double.uniform)


def test_nothing_global_is_touched_or_read():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draws(range(4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draws(range(4))[0], first[0])


def test_every_key_is_its_own_draw():
    """Seeds, samples, repeats and steps: no two of the draws are the same."""
    normal = torch.stack([draws(range(40), 5, (4,), seed)[0] for seed in (0, 1, 2**40)])
    uniform = torch.stack([draws(range(40), 5, (4,), seed)[1] for seed in (0, 1, 2**40)])
    for values in (normal[..., 0], uniform):
        assert len(values.unique()) >= values.numel() - 2  # float32 normals may meet by chance once
    assert len(torch.unique(normal.reshape(-1, 4), dim=0)) == normal.numel() // 4
    # these two agree in the low 32 bits of their 64-bit seed, which are all that torch's CPU generator looks at
    one, other = (KeyedNoise(0, [sample], count, (4,)).draw().normal[-1] for sample, count in ((3574, 8), (4411, 6)))
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="negative"):
        KeyedNoise(-1, [0], 1, (2,))


def test_normals_are_standard_normal_and_uniforms_uniform():
    values = draws(range(600), 1, (64,), seed=3)[0].double().flatten().numpy()
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs((values**power).mean() - moment) < 4 * np.sqrt(variance / len(values))
    values = draws(range(4000), 1, (1,), seed=4)[1].flatten().numpy()
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    assert 0 <= values.min() < values.max() < 1


def uncorrelated(one, other):
    return abs(float((one * other).mean())) < 4 * float(one.std() * other.std()) / np.sqrt(one.numel())


@pytest.mark.parametrize("axis", range(4), ids=["sample", "repeat", "step", "feature"])
@pytest.mark.parametrize("lag", [1, 2])
def test_neighbouring_keys_are_uncorrelated(axis, lag):
    normal = draws(range(120), 4, (16,), seed=5)[0].double().reshape(120, 4, STEPS, 16)
    length = normal.shape[axis] - lag
    one, other = normal.narrow(axis, 0, length), normal.narrow(axis, lag, length)
    assert uncorrelated(one, other)
    assert uncorrelated(one**2 - 1, other**2 - 1)


def test_normals_and_uniforms_are_uncorrelated():
    normal, uniform = draws(range(3000), 1, (2,), seed=6)
    assert uncorrelated(normal.double(), (uniform - 0.5).unsqueeze(2).expand_as(normal))


def test_streams_of_one_key_are_independent_and_the_first_is_the_trajectories():
    first, again, other = (KeyedNoise(5, range(2000), 1, (8,), stream=stream).draw().normal for stream in (0, 0, 1))
    assert torch.equal(first, again)
    assert uncorrelated(first, other)
    assert float((first == other).float().mean()) < 0.01
    assert torch.equal(KeyedNoise(5, [7], 1, (8,)).draw().normal, first[7:8])
