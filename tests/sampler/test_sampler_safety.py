"""What belongs to the caller stays the caller's, keys stay apart, and input that does not fit is refused."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from gaussian_test.analysis import GaussianScore
from gaussian_test.sampler import (
    EmpiricalScore,
    ExactReversal,
    GaussianComponents,
    KeyedNoise,
    MixtureScore,
    UTurnPlan,
    VarianceExploding,
)


def test_different_keys_differ_also_among_many():
    # these two keys agree in the low 32 bits of their 64-bit seed, which are all that torch's CPU generator looks at
    a = KeyedNoise(0, [3574], 8, (4,)).draw().normal[7]
    b = KeyedNoise(0, [4411], 6, (4,)).draw().normal[5]
    assert not torch.equal(a, b)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_state_of_a_float64_mixture_loads_and_leaves_sklearn_alone(kind):
    x = np.random.default_rng(0).normal(size=(60, 3))
    one, two = (GaussianMixture(2, covariance_type=kind, random_state=s).fit(x * (1 + s)) for s in (0, 1))
    means, covariances = one.means_.copy(), one.covariances_.copy()
    score, other = (MixtureScore.from_sklearn(m, dtype=torch.float64) for m in (one, two))
    score.load_state_dict(other.state_dict())
    assert torch.equal(score.components.means, other.components.means)
    assert np.array_equal(one.means_, means)
    assert np.array_equal(one.covariances_, covariances)


def test_changing_ones_own_array_does_not_change_the_gaussian_score():
    mean, spectrum = np.zeros(3), np.ones(3)
    score = GaussianScore.from_moments(mean, spectrum=spectrum, dtype=torch.float64)
    mean += 5
    spectrum *= 4
    assert score.denoise(torch.zeros(1, 3).double(), 1.0).tolist() == [[0.0, 0.0, 0.0]]


def test_an_unknown_class_is_not_class_zero():
    """Labels may live on a device, where looking at them would wait: an unknown class gives NaN, which a run then reports."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    labels = np.arange(20) % 2
    for score in (GaussianScore.fit(x, labels), EmpiricalScore.fit(x, labels)):
        denoised = score.denoise(torch.ones(2, 3), 1.0, torch.tensor([7, 1]))
        assert denoised[0].isnan().all()
        assert denoised[1].isfinite().all()


def test_classes_may_have_gaps():
    x = np.random.default_rng(0).normal(size=(20, 3))
    apart, together = GaussianScore.fit(x, 4 * (np.arange(20) % 2)), GaussianScore.fit(x, np.arange(20) % 2)
    state = torch.ones(2, 3)
    torch.testing.assert_close(
        apart.denoise(state, 1.0, torch.tensor([4, 0])), together.denoise(state, 1.0, torch.tensor([1, 0])), rtol=0, atol=0
    )


def test_states_at_chosen_times_are_those_of_the_whole_path():
    x = torch.randn(5, 3)
    score = EmpiricalScore(x)
    plan = UTurnPlan(score.process, [1.0, 4.0], steps=8)
    whole = {s.times[0]: s.x for s in plan.run(x, range(5), {"e": score}, {"e": ExactReversal()}, path=True) if s.phase == "path"}
    some = [s for s in plan.run(x, range(5), {"e": score}, {"e": ExactReversal()}, path=[0.3, 0.0]) if s.phase == "path"]
    nearest = min(whole, key=lambda time: abs(time - 0.3))
    assert [s.times[0] for s in some] == [nearest, 0.0]
    for state in some:
        assert torch.equal(state.x, whole[state.times[0]])


@pytest.mark.parametrize(
    "labels",
    [{"typo": torch.zeros(5, dtype=torch.long)}, {"e": torch.zeros(1, dtype=torch.long)}, {"e": torch.zeros(4, dtype=torch.long)}],
)
def test_labels_that_do_not_match_are_refused(labels):
    x = torch.randn(5, 3)
    score = EmpiricalScore(x, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match="match"):
        list(UTurnPlan(VarianceExploding(), [1.0]).run(x, range(5), {"e": score}, {"e": ExactReversal()}, labels))


def test_no_samples_give_no_states():
    x = torch.randn(5, 3)
    plan = UTurnPlan(VarianceExploding(), [1.0])
    assert list(plan.run(x[:0], [], {"e": EmpiricalScore(x)}, {"e": ExactReversal()})) == []


def test_labels_stay_the_users_and_the_scores():
    x, labels, given = torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    score = EmpiricalScore(x, given)
    before = score.denoise(x, 1.0, labels)
    given[:] = 0
    assert torch.equal(score.denoise(x, 1.0, labels), before)
    score.load_state_dict(EmpiricalScore(x, torch.tensor([1, 1, 0, 0])).state_dict())
    assert given.tolist() == [0, 0, 0, 0]


def test_a_low_rank_gaussian_does_not_depend_on_the_basis_of_its_plane_in_float32():
    """Twice the same isotropic Gaussian on a plane, in two bases of it: each is responsible for half, at any noise level."""
    d, r, nu = 64, 8, 0.002
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(d, r, generator=generator, dtype=torch.float64))[0]
    turn = torch.linalg.qr(torch.randn(r, r, generator=generator, dtype=torch.float64))[0]
    mean = torch.randn(d, generator=generator)
    components = GaussianComponents(mean.expand(2, d).clone(), torch.ones(2, r), torch.stack([plane, plane @ turn]).float())
    score = MixtureScore(torch.ones(2), components, (d,))
    x = mean + (torch.randn(20, r, generator=generator).double() @ plane.T).float() + nu * torch.randn(20, d, generator=generator)
    shares = score.responsibilities(x, nu)
    torch.testing.assert_close(shares, torch.full((20, 2), 0.5), rtol=0, atol=0.05)
