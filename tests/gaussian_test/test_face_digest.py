"""Digests: what is another score or other data has another one."""

import torch

from gaussian_test import sampler
from gaussian_test.store.digest import score_digest


def test_samples_of_equal_center_and_norms_are_told_apart():
    """The buffers of a score are the same then, and only the values differ."""
    one = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [3.0, 4.0], [-3.0, -4.0]])
    other = one * torch.tensor([1.0, -1.0])
    first, second = sampler.EmpiricalScore(one), sampler.EmpiricalScore(other)
    for name in ("center", "half_square_norm"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert score_digest(first) != score_digest(second)
    assert score_digest(first) == score_digest(sampler.EmpiricalScore(one.clone()))
