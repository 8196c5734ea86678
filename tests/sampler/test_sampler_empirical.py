"""The empirical score's own laws: draws by inversion, nearest samples, and tiles that change memory but not results."""

import numpy as np
import pytest
import torch
from sampler_zoo import noise_like, normal, pairwise_cover, tiled
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from gaussian_test.sampler import EmpiricalScore
from gaussian_test.sampler.scores import empirical, products, store, truncated


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
    monkeypatch.setattr(empirical, "among", lambda samples, states, prefer: torch.full((len(states),), -1))
    plain = score.nearest(x, prefer), score.nearest(x, prefer.roll(1)), score.nearest(x)
    assert torch.equal(fast[0][0], plain[0][0])
    for one, other in zip(fast, plain, strict=True):
        assert torch.equal(score.points[one[0]], score.points[other[0]])
        torch.testing.assert_close(one[1], other[1], rtol=1e-6, atol=1e-7)


def photographs(count, features=384, seed=0):
    """Return samples whose spectrum falls as that of images does, some of them twice, and few with what others lack."""
    x = normal(count, features, seed=seed).float() * 20 / torch.arange(1, features + 1) ** 0.8
    x[1::50] = x[::50]
    x[7, -40:] += 3  # outside of what a part of the samples shows
    return x


@pytest.fixture
def few_suffice(monkeypatch):
    """Truncate for small sets too, and whatever the cost."""
    monkeypatch.setattr(truncated, "SAMPLES", 1)
    monkeypatch.setattr(truncated, "NUMBERS", 1)
    monkeypatch.setattr(truncated, "LISTED", 0.1)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0, 1.6])
@pytest.mark.parametrize("kind", ["float32", "float64", "bytes", "classes", "levels"])
def test_a_truncated_posterior_is_the_whole_one_but_for_its_rounding(few_suffice, monkeypatch, kind, level):
    """Mean, density, entropy and draws, against all samples in double precision."""
    x, labels, label, scaling = photographs(800), torch.arange(800) % 3, None, (1.0, 0.0)
    if kind == "bytes":
        scaling = (0.25, -32.0)
        x = ((x - scaling[1]) / scaling[0]).round().clamp(0, 255).to(torch.uint8)
    dtype = torch.float64 if kind == "float64" else torch.float32
    score = EmpiricalScore.fit(x, labels, dtype=dtype, scaling=scaling)
    start = score.originals(torch.arange(0, 768, 8))
    noise = noise_like(start, seed=3)
    moved, t = start + level * noise.normal.to(dtype), level
    if kind == "classes":
        label = labels[torch.arange(0, 768, 8)].add(torch.arange(96) % 2) % 3  # the start's own class, or another
    if kind == "levels":
        t = torch.tensor([level, 30.0]).double().repeat_interleave(48)
        monkeypatch.setattr(truncated, "ROWS", 40)
        moved = start + t[:, None].float() * noise.normal.float()
    plain = EmpiricalScore(score.originals(torch.arange(800)).double(), labels)
    plain.truncated_below = 0.0
    shares = [1.0 if index is None else len(index) / 800 for _, _, index in score._parts(*score.signal(moved, t), label)]
    assert min(shares) < (0.95 if level > 1 or label is not None else 0.5)
    found, expected = (one.evaluate(moved.to(y), t, one.center * 0, label) for one, y in ((score, dtype), (plain, torch.float64)))
    rounding = 1e-12 if kind == "float64" else 3e-5
    torch.testing.assert_close(found.denoised.double(), expected.denoised, rtol=rounding, atol=20 * rounding)
    torch.testing.assert_close(found.log_ratio, expected.log_ratio, rtol=20 * rounding, atol=0.01)
    torch.testing.assert_close(found.information, expected.information, rtol=0, atol=30 * rounding)
    assert torch.equal(score.denoise(moved, t, label), found.denoised)
    drawn = [one.posterior_index(moved.to(y), t, noise, label) for one, y in ((score, dtype), (plain, torch.float64))]
    assert torch.equal(*drawn)


STATES = {
    "noised samples": lambda x: x[:64] + normal(64, 384, seed=5).float(),
    "samples": lambda x: x[:64],
    "outside of the leading coordinates": lambda x: x[:64].flip(1),
    "noise alone": lambda x: 4 * normal(64, 384, seed=5).float(),
    "between two samples": lambda x: (x[:64] + x[64:128]) / 2,
    "far away": lambda x: 1e4 * normal(64, 384, seed=5).float(),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("samples", ["photographs", "isotropic"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_samples_that_are_left_out_have_less_weight_than_rounding(few_suffice, monkeypatch, kind, samples, number):
    """Of any states, at any level, group by group: in double precision."""
    monkeypatch.setattr(truncated, "LISTED", 1e-9)
    x = photographs(600) if samples == "photographs" else normal(600, 384).float()
    score = EmpiricalScore(x)
    monkeypatch.setattr(score._truncation, "level", lambda nu: number)
    y, shortest = STATES[kind](score.samples).contiguous(), 1.0
    for nu in (0.02, 0.3, 1.0, 3.0):
        square = torch.tensor(nu**2)
        exact = (-(torch.cdist(y.double(), score.samples.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2)) / (2 * nu**2)
        weights = exact.softmax(1)
        for rows, index in score._truncation.lists(y, square, lambda rows: None):
            shortest = min(shortest, len(index) / 600)
            left_out = torch.ones(600, dtype=torch.bool)
            left_out[index] = False
            assert weights[rows][:, left_out].sum(1).max() <= 2**-24
    assert shortest < 0.2 or samples == "isotropic" or kind not in ("noised samples", "samples", "between two samples")


def test_coordinates_err_by_less_than_is_allowed_for(few_suffice):
    """From those in the nearest orthonormal basis, computed in double precision."""
    score = EmpiricalScore(photographs(600))
    found = score._truncation
    left, _, right = torch.linalg.svd(found.basis.double(), full_matrices=False)
    exact = score.samples.double() @ (left @ right)
    error = (truncated._rotated(score.samples, found.basis).double() - exact).norm(dim=1) / score.samples.double().norm(dim=1)
    assert 1e-8 < error.max() < found.error < 1e-3


@pytest.mark.parametrize(
    "kind", ["few states", "high noise", "streamed", "not finite", "overflow", "no such class", "tiny", "huge"]
)
def test_what_cannot_be_truncated_is_computed_whole(few_suffice, kind):
    """Bit for bit as without; the same where samples are looked at first."""
    x = photographs(600) * {"tiny": 1e-12, "huge": 1e12}.get(kind, 1.0)
    labels = torch.arange(600) % 2
    one, other = (EmpiricalScore.fit(x, labels, resident=kind != "streamed") for _ in range(2))
    other.truncated_below = 0.0
    moved = x[:64] + 0.3 * normal(64, 384).float()
    label = torch.full((64,), 5) if kind == "no such class" else None
    if kind == "few states":
        moved = moved[:63]
    if kind == "not finite":
        moved[::4] = torch.nan
    if kind == "overflow":
        moved[::4] *= 1e37
    level = 20.0 if kind == "high noise" else 0.3
    looked_at = kind in ("not finite", "overflow", "no such class")
    found, expected = (score.denoise(moved, level, label) for score in (one, other))
    torch.testing.assert_close(found, expected, rtol=1e-6 * looked_at, atol=1e-5 * looked_at, equal_nan=True)
    assert ("_truncation" in vars(one)) == looked_at


def test_truncation_does_not_depend_on_what_was_asked_before(few_suffice):
    """Or a run that is resumed would have other bits."""
    x, noise = photographs(600), normal(64, 384).float()
    first, second = EmpiricalScore(x), EmpiricalScore(x)
    levels = (0.1, 0.3, 0.7, 1.2, 2.0)
    ascending = [first.denoise(x[:64] + nu * noise, nu) for nu in levels]
    descending = [second.denoise(x[:64] + nu * noise, nu) for nu in levels[::-1]]
    assert all(map(torch.equal, ascending, descending[::-1]))
