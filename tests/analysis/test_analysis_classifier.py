"""The classifier of end points against scikit-learn, typical distances, and bands where little varies."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from gaussian_test import analysis
from gaussian_test.analysis.uturn.classifier import (
    FittedClassifier,
    cross_validated_accuracy,
    make_classifier,
    nearest_accuracy,
    typical_nearest_distance,
)
from gaussian_test.sampler import EmpiricalScore, GaussianComponents

X, Y = load_digits(return_X_y=True)
X = X[:600].reshape(-1, 1, 8, 8) / 8 - 1
Y = Y[:600]


def two_gaussians(count, distance, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return random.normal(size=(count, 3)) + distance * labels[:, None] * np.eye(3)[0], labels


@pytest.mark.parametrize("kind", ["knn", "svc"])
def test_a_classifier_by_name_knows_the_digits(kind):
    others = np.arange(600) % 6 > 0
    fitted = FittedClassifier(make_classifier(kind), X[others], Y[others])
    found = fitted(torch.from_numpy(X[~others]).float())
    assert found.dtype == torch.int64
    assert (found.numpy() == Y[~others]).mean() > 0.9


def test_the_probabilities_of_the_support_vector_machine_are_nearly_the_posterior():
    """By their Brier score on fresh samples of two Gaussians, whose posterior is known: the constant 1/2 has 0.25."""
    machine = make_classifier("svc").fit(*two_gaussians(2000, 1.5))
    x, labels = two_gaussians(4000, 1.5, seed=1)
    exact = 1 / (1 + np.exp(-1.5 * (x[:, 0] - 0.75)))
    brier = [((p - labels) ** 2).mean() for p in (machine.predict_proba(x)[:, 1], exact)]
    assert brier[1] < brier[0] < brier[1] + 0.015


def test_the_accuracy_is_that_of_scikit_learn():
    own = KNeighborsClassifier(3)
    folds = StratifiedKFold(4, shuffle=True, random_state=7)
    expected = cross_val_score(own, X.reshape(len(X), -1), Y, cv=folds)
    found, error = cross_validated_accuracy(own, X, Y, folds=4, seed=7)
    assert found == pytest.approx(np.average(expected, weights=[150] * 4))
    assert error == pytest.approx(np.sqrt(found * (1 - found) / 600))
    # few samples of a class mean fewer folds, and one leaves no accuracy
    assert np.isnan(cross_validated_accuracy(own, X[:3], [0, 0, 1])).all()
    assert cross_validated_accuracy(KNeighborsClassifier(1), [[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1], folds=5)[0] == 1


def test_the_nearest_sample_is_leave_one_out_one_neighbour():
    found, _ = nearest_accuracy(EmpiricalScore.fit(X), Y)
    neighbours = KNeighborsClassifier(2).fit(X.reshape(len(X), -1), Y).kneighbors(X.reshape(len(X), -1))[1]
    assert found == pytest.approx((Y[neighbours[:, 1]] == Y).mean(), abs=2 / 600)


@pytest.mark.parametrize("copies", [2, 7])
def test_a_held_out_sample_is_not_known_by_its_copy(copies):
    """Classes by chance: no classifier is better than chance, also where each sample is there several times."""
    random = np.random.default_rng(1)
    x, labels = np.repeat(random.normal(size=(400, 5)), copies, 0), np.repeat(random.integers(2, size=400), copies)
    error = np.sqrt(0.25 / 400)  # copies do not make it smaller
    assert nearest_accuracy(EmpiricalScore.fit(x), labels)[0] == pytest.approx(0.5, abs=4 * error)
    assert cross_validated_accuracy(KNeighborsClassifier(1), x, labels)[0] == pytest.approx(0.5, abs=4 * error)


def test_an_unknown_classifier_is_refused():
    with pytest.raises(ValueError, match=r"classifier 'tree' is unknown: choose 'knn' or 'svc'"):
        make_classifier("tree")


def test_states_that_are_not_finite_have_no_class_and_leave_the_others_theirs():
    own = KNeighborsClassifier(1)
    fitted = FittedClassifier(own, [[0.0], [1.0]], [3, 5])
    assert not hasattr(own, "classes_")  # the classifier of the user is left alone
    assert fitted(torch.tensor([[0.9], [torch.nan], [0.2], [torch.inf]])).tolist() == [5, -1, 3, -1]
    assert fitted(torch.full((2, 1), torch.nan)).tolist() == [-1, -1]


@pytest.mark.parametrize("count", [2, 3, 50, 400])
@pytest.mark.parametrize("most", [10, 1024])
def test_typical_distance_is_the_median_nearest_neighbour(count, most):
    x = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    distances = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x[chosen])[0][:, 1]
    expected = np.sort(distances)[(len(distances) - 1) // 2]  # torch's median is the lower one
    typical = typical_nearest_distance(EmpiricalScore.fit(x), most=most)
    assert typical == pytest.approx(expected, rel=1e-5)


def test_prior_draws_have_the_gaussians_mean_and_covariance():
    """An affine function of normal variables: its matrix squared is the covariance, to rounding."""
    vectors = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0][None, :, :3]
    components = GaussianComponents(torch.ones(1, 5).double(), torch.tensor([[4.0, 1.0, 0.3]]).double(), vectors)
    root = components.prior(0, torch.eye(5).double()) - 1
    covariance = vectors[0] @ torch.diag(components.eigenvalues[0]) @ vectors[0].T
    torch.testing.assert_close(root.T @ root, covariance)
    torch.testing.assert_close(components.prior(0, torch.zeros(1, 5).double()), torch.ones(1, 5).double())


def test_what_does_not_vary_stays_known_beside_what_hardly_does():
    """One sample of 30 differs at one point: its band can be infinite there, but not undefined, nor anywhere else."""
    values = np.ones((30, 3))
    values[0, 1] = 2.0
    band = analysis.ClusterBootstrap(30, 500).band(values)
    assert not np.isnan(band.low).any()
    assert not np.isnan(band.high).any()
    np.testing.assert_array_equal(band.low[[0, 2]], 1)
    np.testing.assert_array_equal(band.high[[0, 2]], 1)
