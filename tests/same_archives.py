"""When two archives are the same."""

import gaussian_test as gt
from gaussian_test.store import archive


def undated(dataset):
    """Return a result without the moment it was made."""
    return dataset.drop_attrs(deep=False).assign_attrs({k: v for k, v in dataset.attrs.items() if k != "date_created"})


def assert_same(path, other):
    """Assert that two archives are the same bit for bit, but for the moment at which they were made."""
    assert undated(gt.open_archive(path)).identical(undated(gt.open_archive(other)))
    for group in ("moments", "pictures"):
        assert archive.read(path, group).identical(archive.read(other, group))
