"""The empirical score's own laws: draws by inversion, nearest samples, and tiles that change memory but not results."""

import numpy as np
import pytest
import torch
from sampler_zoo import noise_like, normal, pairwise_cover, tiled
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from gaussian_test.sampler import EmpiricalScore
from gaussian_test.sampler.scores import products, store


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest storage that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in inputs:
                self.numel = max(self.numel, value.numel())
        return result


def weights(samples, x, level, labels=None, label=None):
    logits = -(x.unsqueeze(1) - samples).square().sum(2) / (2 * level**2)
    if label is not None:
        logits = logits.masked_fill(labels != label.unsqueeze(1), -torch.inf)
    return logits.softmax(1)


@pytest.mark.parametrize("count", [1, 5, 32, 33, 200])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_draw_inverts_the_cumulative_weights(count, conditional):
    """In two stages or in one: the sample at which the cumulative weight passes the uniform variable."""
    samples, x = normal(count, 3), normal(50, 3, seed=1)
    labels = torch.arange(count) % min(3, count)
    label = torch.arange(50) % min(3, count) if conditional else None
    score = EmpiricalScore(samples, labels)
    noise = noise_like(x, seed=2)
    for level in (0.05, 1.0, 100.0):
        cumulative = weights(samples, x, level, labels, label).cumsum(1)
        expected = torch.searchsorted(cumulative / cumulative[:, -1:], noise.uniform.unsqueeze(1), right=True).squeeze(1)
        index = score.posterior_index(x, level, noise, label)
        assert torch.equal(index, expected)
        torch.testing.assert_close(score.posterior(x, level, noise, label), samples[index])


SIZES = {"TILE_ELEMENTS": (1, 64, 997), "MAX_ROWS": (1, 7), "BLOCK": (1, 5, 1000)}
SETTINGS = [(name, size) for name, sizes in SIZES.items() for size in sizes]


@pytest.mark.parametrize(("setting", "per_row", "conditional"), pairwise_cover(SETTINGS, [False, True], [False, True]))
def test_tiles_and_blocks_change_no_result(monkeypatch, setting, per_row, conditional):
    samples, x = normal(131, 4), normal(23, 4, seed=1)
    samples[17] = samples[90]
    score = EmpiricalScore(samples, torch.arange(131) // 50)
    t = torch.linspace(0.1, 3, 23).double() if per_row else 0.6
    label = torch.arange(23) % 3 if conditional else None
    noise, prefer = noise_like(x), torch.arange(23)

    def results():
        return score.denoise(x, t, label), score.posterior_index(x, t, noise, label), score.nearest_index(x, prefer)

    expected = results()
    tiled(monkeypatch, **dict([setting]))
    changed = results()
    torch.testing.assert_close(changed[0], expected[0], rtol=1e-12, atol=1e-13)
    assert torch.equal(changed[1], expected[1])
    assert torch.equal(changed[2], expected[2])


@pytest.mark.parametrize(
    ("most", "elements", "masses"),
    [(4, store.SAMPLE_ELEMENTS, 4), (store.MOST_BLOCKS, store.SAMPLE_ELEMENTS, 32), (4, 128 * 4, 8)],
    ids=["many samples", "few samples", "many samples of many features"],
)
def test_a_draw_holds_few_masses_of_blocks(monkeypatch, most, elements, masses):
    """Blocks grow with the number of samples as long as one fits into a tile; what is drawn is the same."""
    samples, x = normal(1024, 4), normal(23, 4, seed=1)
    noise, seen, genuine = noise_like(x), [], products.pick

    def pick(weights, uniform):
        seen.append(weights.shape[1])
        return genuine(weights, uniform)

    monkeypatch.setattr(products, "pick", pick)
    score = EmpiricalScore(samples)
    expected = score.posterior_index(x, 1.0, noise)
    assert seen == [32, 32]  # of blocks of 32, then within one
    tiled(monkeypatch, MOST_BLOCKS=most, SAMPLE_ELEMENTS=elements)
    assert torch.equal(score.posterior_index(x, 1.0, noise), expected)
    assert seen[2:] == [masses, 1024 // masses]


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    tile, rows, features = 2**11, 8, 4
    monkeypatch.setattr(products, "TILE_ELEMENTS", tile)
    x = normal(rows, features, seed=1)
    calls = {
        "denoise": lambda score: score.denoise(x, 1.0),
        "posterior_index": lambda score: score.posterior_index(x, 1.0, noise_like(x)),
        "nearest_index": lambda score: score.nearest_index(x),
    }
    largest = {}
    for count in (2**12, 2**14):
        score = EmpiricalScore(normal(count, features))
        assert score.duplicates == 0  # its digests are there
        for what, call in calls.items():
            with Largest() as record:
                call(score)
            largest[what, count] = record.numel
            allowed = max(tile, rows * count // store.BLOCK) if what == "posterior_index" else tile
            assert tile // 2 <= record.numel <= allowed  # the tile itself was seen
    for what in ("denoise", "nearest_index"):
        assert largest[what, 2**12] == largest[what, 2**14]


@pytest.mark.parametrize(("count", "features"), [(1, 3), (3, 3), (4, 2), (500, 6), (40, 60), (300, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_is_scikit_learns(count, features, dtype):
    samples, x = normal(count, features, dtype=dtype), 1.5 * normal(60, features, seed=1, dtype=dtype)
    peer = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(samples.double().numpy())
    expected = peer.kneighbors(x.double().numpy(), return_distance=False)[:, 0]
    assert np.array_equal(EmpiricalScore(samples).nearest_index(x).numpy(), expected)


def test_nearest_separates_near_duplicates():
    """Closer than the rounding of a matrix product in float32, far from the mean: the last word is a difference."""
    far = 100 * normal(50, dtype=torch.float32).sign()
    samples = torch.stack([far, far, far, far, -far, -far])
    for row, feature in ((1, 0), (2, 1), (3, 2), (5, 3)):
        samples[row, feature] += 1e-3
    score = EmpiricalScore(samples)
    assert score.nearest_index(samples).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_preferred_duplicate_wins_and_only_duplicates():
    samples = normal(5, 3, dtype=torch.float32).repeat(20, 1)  # twenty copies: more than there are candidates
    score = EmpiricalScore(samples)
    prefer = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(score.nearest_index(samples[prefer], prefer), prefer)
    other = (prefer + 1) % 100  # a copy of another sample: must not win
    assert torch.equal(score.nearest_index(samples[prefer], other) % 5, prefer % 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fit_takes_any_array(dtype):
    array = normal(7, 2, 2).numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    x = normal(3, 2, 2, seed=1, dtype=dtype)
    expected = EmpiricalScore(torch.from_numpy(array).to(dtype)).denoise(x, 1.0)
    for given in (array, frozen, torch.from_numpy(array), array.tolist(), np.asfortranarray(array)):
        torch.testing.assert_close(EmpiricalScore.fit(given, dtype=dtype).denoise(x, 1.0), expected)


RANDOM = np.random.default_rng(0)
FAR_APART = {  # differences that products in float32 lose, and the noise levels at which they matter
    "two clusters": (np.c_[0.1 * RANDOM.normal(size=(200, 4)), (np.arange(200) % 2) * 1000.0], (0.01, 0.04)),
    "offset": (1e4 + 0.3 * RANDOM.normal(size=(200, 4)), (0.03, 0.1)),
    "heavy tails": (np.exp(3 * RANDOM.normal(size=(400, 3))), (0.003, 0.01)),
    "one outlier": (np.r_[1e-2 * RANDOM.normal(size=(300, 2)), [[100.0, 0.0]]], (1e-3, 1e-2)),
}


@pytest.mark.parametrize("kind", FAR_APART)
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_float32_has_the_weights_of_float64_however_far_apart_samples_are(kind, resident):
    """The same numbers as samples in both: mean, draws and nearest samples, at one level or one per row."""
    samples, levels = FAR_APART[kind]
    samples = samples.astype(np.float32)
    single = EmpiricalScore.fit(samples, resident=resident)
    double = EmpiricalScore.fit(samples, dtype=torch.float64)
    x = torch.from_numpy(samples)
    noise = noise_like(x)
    for level in levels:
        assert kind == "offset" or level < single.float64_below  # which the center takes off
        moved = x + level * noise.normal.float()
        for t in (level, torch.full((len(x),), level, dtype=torch.float64)):
            mean, expected = single.denoise(moved, t), double.denoise(moved.double(), t)
            torch.testing.assert_close(mean, expected.float(), rtol=1e-6, atol=0.02 * level)
            drawn = single.posterior_index(moved, t, noise)
            assert (drawn == double.posterior_index(moved.double(), t, noise)).float().mean() >= 0.985
        assert torch.equal(single.nearest_index(moved), double.nearest_index(moved.double()))


def test_copies_of_a_sample_are_not_its_neighbours():
    """However many there are, and -0 is 0; all the same: no neighbour, at an infinite distance."""
    x = torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0]]).repeat(9, 1)
    x[3] = torch.tensor([-0.0, 1.0])
    score = EmpiricalScore(x)
    assert score.duplicates == 24
    index, distance = score.nearest(x, exclude=torch.arange(27))
    assert torch.equal(x[index], x[torch.tensor([1, 0, 0])].repeat(9, 1))
    torch.testing.assert_close(distance, torch.tensor([2.0, 2.0, 26.0**0.5]).repeat(9))
    same = EmpiricalScore(torch.ones(5, 2))
    assert torch.isinf(same.nearest(torch.ones(1, 2), exclude=torch.tensor([2]))[1]).all()
    assert EmpiricalScore(normal(50, 3)).duplicates == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "values", [[-1.0, 1.0], [-1.0, 0.0, 1.0], [0.25, 0.5, 0.75, 1.0], [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0**20, 2.0**-20]]
)
def test_samples_of_few_bits_are_told_apart(values, dtype):
    """Spins, grids, whole numbers and powers of two, all combinations twice: as many points as numpy counts."""
    axes = {2: 11, 3: 7, 4: 5, 5: 5}[len(values)]
    x = torch.cartesian_prod(*[torch.tensor(values, dtype=dtype)] * axes)
    score = EmpiricalScore(torch.cat([x, x]))
    assert score.duplicates == len(x)
    assert len(np.unique(score.points[: len(x)])) == len(np.unique(x.numpy(), axis=0)) == len(x)


@pytest.mark.parametrize("copies", [False, True])
def test_a_state_that_is_a_sample_is_nearest_to_itself(copies, monkeypatch):
    """Without a product: what the product finds, copies and preferred ones minded, states among samples or not."""
    samples = normal(50, 6, seed=4).float()
    samples[40:] = samples[:10] if copies else samples[40:]
    score = EmpiricalScore(samples)
    x = torch.cat([samples, samples[:5] + 0.01, -samples[:1]])
    prefer = torch.cat([torch.arange(50), torch.zeros(6, dtype=torch.long)])
    fast = score.nearest(x, prefer), score.nearest(x, prefer.roll(1)), score.nearest(x)
    monkeypatch.setattr(EmpiricalScore, "_among", lambda self, offset, prefer: torch.full((len(offset),), -1))
    plain = score.nearest(x, prefer), score.nearest(x, prefer.roll(1)), score.nearest(x)
    assert torch.equal(fast[0][0], plain[0][0])
    for one, other in zip(fast, plain, strict=True):
        assert torch.equal(score.points[one[0]], score.points[other[0]])
        torch.testing.assert_close(one[1], other[1], rtol=1e-6, atol=1e-7)
