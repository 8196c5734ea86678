"""Options of the test command."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long versions: more kills, more fuzz (half an hour)")


@pytest.fixture(scope="session")
def long(request):
    """Whether the long version was asked for."""
    return request.config.getoption("--long")
