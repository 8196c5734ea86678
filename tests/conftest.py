"""Options of the test command, and root as an ordinary owner."""

import ctypes
import gc
import os

import pytest

gc.disable()  # what is imported and collected is no garbage, and takes seconds to look through


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long versions: more kills, more fuzz (half an hour)")


@pytest.fixture(scope="session")
def long(request):
    """Whether the long version was asked for."""
    return request.config.getoption("--long")


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


VERSION_3 = 0x20080522  # of capget and capset: two words for each set
ABOVE_PERMISSIONS = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


def _capabilities(call, sets):
    if getattr(ctypes.CDLL(None, use_errno=True), call)(ctypes.byref(_Header(VERSION_3, 0)), sets):
        raise OSError(ctypes.get_errno(), call)


@pytest.fixture
def without_privileges(tmp_path):
    """Have permissions bind root as they bind everybody, in this thread; a program that it starts has its privileges back."""
    before, less = (_Sets * 2)(), (_Sets * 2)()
    try:
        for sets in (before, less):
            _capabilities("capget", sets)
        less[0].effective &= ~ABOVE_PERMISSIONS
        _capabilities("capset", less)
    except (AttributeError, OSError) as error:  # no such system, or it forbids even to give something up
        if os.geteuid() == 0:
            pytest.skip(f"permissions do not bind root, and it cannot give up its privileges here ({error}): run as another user")
        yield
        return
    try:
        closed = tmp_path / "closed.txt"
        closed.touch(0o000)
        try:
            closed.open().close()
        except PermissionError:
            closed.unlink()
        else:
            pytest.skip("permissions bind nobody on this file system: run the tests on another one (--basetemp)")
        yield
    finally:
        _capabilities("capset", before)
