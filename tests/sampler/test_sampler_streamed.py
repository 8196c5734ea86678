"""A score whose samples stay where they are, or stay bytes, gives what the resident one gives, bit for bit."""

import copy
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from sampler_zoo import noise_like, normal, pairwise_cover, tiled

import gaussian_test as gt
from gaussian_test.analysis.uturn.classifier import nearest_accuracy, typical_nearest_distance
from gaussian_test.sampler import EmpiricalScore, ResidentSamples, StreamedSamples
from gaussian_test.sampler.scores import products, store

COUNT, EVENT = 1500, (1, 5, 7)
LABELS = np.arange(COUNT) % 3
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(scope="module")
def pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *EVENT), dtype=np.uint8)
    pixels[700:720] = pixels[3]  # duplicates, also across tiles
    return pixels


def saved(folder, x):
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def loaded(folder, pixels):
    return gt.data.load(saved(folder, pixels)).x


def netcdf(folder, pixels):
    x = xr.DataArray((pixels / 255).astype(np.float32), dims=("sample", "channel", "row", "column"), name="x")
    x.to_netcdf(folder / "x.nc", engine="netcdf4", encoding={"x": {"zlib": True, "chunksizes": (100, *EVENT)}})
    return gt.data.load(folder / "x.nc").x


def dask_array(pixels):
    return pytest.importorskip("dask.array", reason="dask is an optional extra").from_array(pixels / 255, chunks=(130, 1, 5, 4))


SOURCES = {
    "mapped_bytes": lambda folder, pixels: np.load(saved(folder, pixels), mmap_mode="r"),
    "mapped_floats": lambda folder, pixels: np.load(saved(folder, (pixels / 255).astype(">f8")), mmap_mode="r"),
    "loaded": loaded,
    "netcdf": netcdf,
    "dask_array": lambda folder, pixels: dask_array(pixels),
}


@pytest.fixture(scope="module", params=SOURCES)
def source(request, pixels, tmp_path_factory):
    return SOURCES[request.param](tmp_path_factory.mktemp("source"), pixels)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles in either direction, reads that do not coincide with them, and states in several chunks."""
    tiled(monkeypatch, SAMPLE_ELEMENTS=350 * 35, MAX_ROWS=512)
    monkeypatch.setattr(store, "READ_ELEMENTS", 111 * 35)


def same(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def states_near(score, batch):
    """Ground-truth samples and others, duplicates among them."""
    index = torch.arange(batch) * 7 % COUNT
    x = score.originals(index)
    x[1::2] += 0.1 * normal(*x[1::2].shape, dtype=x.dtype)
    return x, index


def both(x, labels=None, dtype=torch.float32):
    """The resident score and the streamed one."""
    return [EmpiricalScore.fit(x, labels, dtype=dtype, resident=kept) for kept in (True, False)]


def check_everything(resident, streamed, batch):
    x, index = states_near(resident, batch)
    same(streamed.originals(index), resident.originals(index))
    same(streamed.center, resident.center)
    same(streamed.half_square_norm, resident.half_square_norm)
    noise = noise_like(x)
    for t in (0.02, torch.linspace(0.1, 3, batch, dtype=x.dtype)):
        for label in [None] if resident.labels is None else [None, resident.labels[index]]:
            same(streamed.denoise(x, t, label), resident.denoise(x, t, label))
            same(streamed(x, t, label), resident(x, t, label))
            same(streamed.posterior(x, t, noise, label), resident.posterior(x, t, noise, label))
            same(streamed.posterior_index(x, t, noise, label), resident.posterior_index(x, t, noise, label))
    for prefer, exclude in ((None, None), (index, None), (None, index)):
        same(streamed.nearest_index(x, prefer, exclude), resident.nearest_index(x, prefer, exclude))
        for one, other in zip(streamed.nearest(x, prefer, exclude), resident.nearest(x, prefer, exclude), strict=True):
            same(one, other)


@pytest.mark.parametrize(("dtype", "labels", "batch"), [(torch.float32, LABELS, 20), (torch.float64, None, 1)])
def test_streamed_is_resident_bit_for_bit(source, dtype, labels, batch):
    check_everything(*both(source, labels, dtype), batch)


def test_more_rows_than_a_tile_are_streamed_bit_for_bit_and_analysis_asks_the_same(pixels):
    resident, streamed = both(pixels, LABELS)
    check_everything(resident, streamed, 600)
    assert typical_nearest_distance(streamed, most=50) == typical_nearest_distance(resident, most=50)
    assert nearest_accuracy(streamed, LABELS) == nearest_accuracy(resident, LABELS)


@pytest.mark.parametrize(("count", "features", "dtype"), pairwise_cover([1, 31, 33, 351], [1, 3, 64], DTYPES))
def test_any_size_is_resident_bit_for_bit(count, features, dtype):
    x = np.random.default_rng(count).normal(size=(count, features))
    resident, streamed = both(x, dtype=dtype)
    states = normal(5, features, dtype=dtype)
    noise = noise_like(states)
    same(streamed.denoise(states, 0.7), resident.denoise(states, 0.7))
    same(streamed.posterior(states, 0.7, noise), resident.posterior(states, 0.7, noise))
    same(streamed.nearest(states)[1], resident.nearest(states)[1])


def test_an_array_in_another_order_is_the_same_set(pixels):
    """Sums run over the same tiles whatever the strides of what was given."""
    x = (pixels / 255).astype(np.float32)
    for score in both(np.asfortranarray(x)):
        check_everything(EmpiricalScore.fit(x), score, 3)


def test_tiles_are_all_samples_in_order_whatever_the_form(pixels):
    resident, streamed = both(pixels)
    assert resident.count == streamed.count == COUNT
    tiles = list(resident.tiles())
    assert [len(tile) for tile in tiles] == [111] * 13 + [57]
    for one, other in zip(streamed.tiles(), tiles, strict=True):
        same(one, other)
    assert resident.samples.dtype == torch.uint8
    same(torch.cat(tiles), EmpiricalScore(torch.from_numpy(pixels).float()).samples)
    same((torch.cat(tiles) + resident.center).reshape(COUNT, *EVENT).round(), torch.from_numpy(pixels).float())


def test_copies_and_pickles_are_equal(source):
    score = EmpiricalScore.fit(source, LABELS, resident=False)
    x, index = states_near(score, 4)
    for other in (copy.deepcopy(score), pickle.loads(pickle.dumps(score))):
        assert other.samples is None
        same(other.originals(index), score.originals(index))
        same(other.denoise(x, 0.5, score.labels[index]), score.denoise(x, 0.5, score.labels[index]))
    assert copy.deepcopy(score)._streamed.source is source  # which is not copied


def test_a_pickle_of_a_loaded_source_is_its_path(pixels, tmp_path):
    score = EmpiricalScore.fit(loaded(tmp_path, np.tile(pixels, (4, 1, 1, 1))), resident=False)
    without_norms = len(pickle.dumps(score)) - score.half_square_norm.numel() * 4
    assert without_norms < pixels.nbytes / 4


@pytest.mark.parametrize(("fitted", "moved"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_a_change_of_type_is_the_resident_ones(pixels, fitted, moved):
    x = pixels / 255
    resident = EmpiricalScore(torch.from_numpy(x).to(fitted), torch.from_numpy(LABELS)).to(moved)
    streamed = EmpiricalScore.fit(x, LABELS, dtype=fitted, resident=False).to(moved)
    assert next(streamed.tiles()).dtype == moved
    check_everything(resident, streamed, 4)


@pytest.mark.parametrize(
    ("scaling", "dtype", "batch"),
    [((1.0, 0.0), torch.float32, 4), ((2 / 255, -1.0), torch.float32, 1), ((0.37, 11.0), torch.float64, 4)],
)
def test_bytes_are_floats_bit_for_bit(pixels, scaling, dtype, batch, monkeypatch):
    monkeypatch.setattr(store, "CONVERTED_ELEMENTS", 50 * 35)
    exact = pixels * np.float64(scaling[0]) + scaling[1]
    floats = EmpiricalScore.fit(exact, LABELS, dtype=dtype)
    kept = EmpiricalScore.fit(pixels, LABELS, dtype=dtype, scaling=scaling)
    assert kept.samples.dtype == torch.uint8
    assert kept.samples.data_ptr() == torch.from_numpy(pixels).data_ptr()  # and they are not copied
    check_everything(floats, kept, batch)


def test_bytes_are_scaled_as_data_are_loaded_and_exact_in_another_type(pixels, tmp_path):
    x = loaded(tmp_path, pixels)
    kept = EmpiricalScore.fit(pixels, scaling=(x.attrs["scale"], x.attrs["offset"]))
    same(torch.cat(list(kept.tiles())), EmpiricalScore.fit(x.values).samples)
    fitted = EmpiricalScore.fit(pixels, LABELS).to(torch.float64)
    expected = EmpiricalScore.fit(pixels, LABELS, dtype=torch.float64)
    whole = torch.cat(list(fitted.tiles())) + fitted.center
    np.testing.assert_allclose(whole.numpy(), pixels.reshape(COUNT, -1), rtol=0, atol=1e-12)
    x, _ = states_near(expected, 4)
    np.testing.assert_allclose(fitted.denoise(x, 30.0), expected.denoise(x, 30.0), rtol=0, atol=1e-3)


def test_only_bytes_in_memory_are_scaled(pixels):
    for samples, resident in ((pixels / 255, True), (pixels, False)):
        with pytest.raises(ValueError, match=r"scaling = .* is for samples of type uint8 in memory"):
            EmpiricalScore.fit(samples, resident=resident, scaling=(2.0, 0.0))


def test_buffers_are_what_they_were(pixels):
    """Others know scores by their state: the resident one's has all samples, the streamed one's all but them."""
    resident, streamed = both(pixels.astype(np.float32), LABELS)
    assert list(resident.state_dict()) == ["samples", "center", "half_square_norm", "labels"]
    assert list(streamed.state_dict()) == ["center", "half_square_norm", "labels"]
    assert resident.samples.shape == (COUNT, 35)
    assert streamed.samples is None


@pytest.mark.parametrize(("batch", "most"), [(1, 320), (40, 320), (512, 64)])
def test_a_tile_is_bounded_in_samples_times_features_and_in_rows_times_samples(pixels, monkeypatch, batch, most):
    monkeypatch.setattr(products, "TILE_ELEMENTS", 512 * 64)
    for score in both(pixels):
        parts = [tile.shape for _, tile, _ in score.products.logits(score.center.expand(batch, -1), torch.ones(()), None)]
        assert {count for count, _ in parts[:-1]} == {most}
        assert sum(count for count, _ in parts) == COUNT


class Watched:
    """An array that counts what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.read = values, values.shape, []

    def __getitem__(self, key):
        part = self.values[key]
        self.read.append((key, len(part)))
        return part


def test_a_pass_reads_every_sample_once_and_no_read_is_large(pixels):
    source = Watched(pixels)
    score = EmpiricalScore.fit(source, resident=False)
    x, _ = states_near(score, 4)
    source.read.clear()
    score.denoise(x, 0.5)
    assert sum(number for _, number in source.read) == COUNT
    assert max(number for _, number in source.read) <= 111
    assert {type(key) for key, _ in source.read} == {slice}


def test_a_gathered_sample_is_read_once_and_runs_as_slices(pixels):
    source = Watched(pixels)
    stream = StreamedSamples(source, torch.float32)
    index = torch.tensor([[9, 7, 8], [8, 8, 10]])
    same(stream.take(index), ResidentSamples(torch.from_numpy(pixels).float().reshape(COUNT, -1)).take(index))
    assert source.read == [(slice(7, 11), 4)]
    source.read.clear()
    assert stream.take(index[0, :0]).shape == (0, 35)
    stream.take(torch.arange(0, COUNT, 2).flip(0))
    assert [number for _, number in source.read] == [111] * 6 + [84]


@pytest.mark.parametrize("resident", [True, False])
def test_what_is_no_set_of_samples_is_refused(pixels, resident):
    for bad in (np.nan, np.inf, 1e300):  # the last in float32
        x = np.zeros((300, 2))
        x[299, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            EmpiricalScore.fit(x, resident=resident)
    for shape in ((), (4,), (0, 3)):
        with pytest.raises(ValueError, match="not a set of samples"):
            EmpiricalScore.fit(np.zeros(shape), resident=resident)
    with pytest.raises(ValueError, match="do not match"):
        EmpiricalScore.fit(pixels, LABELS[1:], resident=resident)
