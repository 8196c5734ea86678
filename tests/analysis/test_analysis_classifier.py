"""The classifier of end points: right where it can be, its accuracy that of scikit-learn, and the Bayes rate."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from gaussian_test.analysis.uturn.classifier import FittedClassifier, cross_validated_accuracy, make_classifier, nearest_accuracy
from gaussian_test.sampler import EmpiricalScore

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
    machine = make_classifier("svc").fit(*two_gaussians(2000, separation=1.5))
    x, labels = two_gaussians(4000, separation=1.5, seed=1)
    exact = 1 / (1 + np.exp(-1.5 * (x[:, 0] - 0.75)))
    brier = [((p - labels) ** 2).mean() for p in (machine.predict_proba(x)[:, 1], exact)]
    assert brier[1] < brier[0] < brier[1] + 0.015


def test_fitting_leaves_the_classifier_of_the_user_alone():
    own = KNeighborsClassifier(1)
    FittedClassifier(own, X, Y)
    assert not hasattr(own, "classes_")


def test_the_accuracy_is_that_of_scikit_learn():
    own = KNeighborsClassifier(3)
    folds = StratifiedKFold(4, shuffle=True, random_state=7)
    expected = cross_val_score(own, X.reshape(len(X), -1), Y, cv=folds)
    found, error = cross_validated_accuracy(own, X, Y, folds=4, seed=7)
    assert found == pytest.approx(np.average(expected, weights=[150] * 4))
    assert error == pytest.approx(np.sqrt(found * (1 - found) / 600))


def test_the_accuracy_is_the_bayes_rate_where_the_classifier_is_right():
    x, labels = two_gaussians(4000, separation=2.0)
    found, error = cross_validated_accuracy(LinearDiscriminantAnalysis(), x, labels)
    assert abs(found - norm.cdf(1.0)) < 4 * error


def test_a_class_of_one_sample_leaves_no_accuracy():
    assert np.isnan(cross_validated_accuracy(KNeighborsClassifier(1), X[:3], [0, 0, 1])).all()


def test_few_samples_of_a_class_mean_fewer_folds():
    found, _ = cross_validated_accuracy(KNeighborsClassifier(1), [[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1], folds=5)
    assert found == 1


def test_the_nearest_sample_is_leave_one_out_one_neighbour():
    found, _ = nearest_accuracy(EmpiricalScore.fit(X), Y)
    neighbours = KNeighborsClassifier(2).fit(X.reshape(len(X), -1), Y).kneighbors(X.reshape(len(X), -1))[1]
    assert found == pytest.approx((Y[neighbours[:, 1]] == Y).mean(), abs=2 / 600)


def test_an_unknown_classifier_is_refused():
    with pytest.raises(ValueError, match=r"classifier 'tree' is unknown: choose 'knn' or 'svc'"):
        make_classifier("tree")


def test_states_that_are_not_finite_have_no_class_and_leave_the_others_theirs():
    fitted = FittedClassifier(KNeighborsClassifier(1), [[0.0], [1.0]], [3, 5])
    assert fitted(torch.tensor([[0.9], [torch.nan], [0.2], [torch.inf]])).tolist() == [5, -1, 3, -1]
    assert fitted(torch.full((2, 1), torch.nan)).tolist() == [-1, -1]
