"""What a process has once: the NetCDF library, matplotlib, settings of numpy and torch."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np


class GlobalLock:
    """A re-entrant lock of this process that is pickled by its name, so that lazy arrays which hold it can be sent elsewhere.

    Parameters
    ----------
    name : str
        The name of the lock in this module.

    Examples
    --------
    >>> import pickle
    >>> pickle.loads(pickle.dumps(NETCDF_LOCK)) is NETCDF_LOCK
    True
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()

    def __reduce__(self) -> str:
        return self._name

    def acquire(self, blocking: bool = True) -> bool:
        """Acquire the lock; return whether this thread has it now."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# The NetCDF and HDF5 libraries are not thread-safe, in whatever call and file; xarray locks reads, but not opening and closing.
# Re-entrant, since xarray takes it for a read, and closes files whenever Python collects garbage.
NETCDF_LOCK = GlobalLock("NETCDF_LOCK")
# matplotlib's settings, parser of formulas and fonts are those of the process
FIGURE_LOCK = GlobalLock("FIGURE_LOCK")


@contextmanager
def netcdf() -> Iterator[None]:
    """Hold the lock of the NetCDF library during a call of it.

    Examples
    --------
    >>> with netcdf():
    ...     pass
    """
    with NETCDF_LOCK:
        _import_netcdf()
        yield


@functools.cache
def _import_netcdf() -> None:
    """Import netCDF4 without the variable that it sets: it would have programs that we start load its HDF5 filters."""
    before = os.environ.get("HDF5_PLUGIN_PATH")
    import netCDF4  # noqa: F401 # HDF5 has read the variable now

    if before is None:
        os.environ.pop("HDF5_PLUGIN_PATH", None)


class SharedSetting:
    """A setting of the process that computations in several threads share: one that needs another value waits.

    Parameters
    ----------
    read : callable
        Returns the setting.
    write : callable
        Changes it.

    Examples
    --------
    >>> world = {"digits": 3}
    >>> digits = SharedSetting(lambda: world["digits"], lambda value: world.update(digits=value))
    >>> with digits.held(5), digits.held(5):
    ...     world["digits"]
    5
    >>> world["digits"]
    3
    """

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self._read = read
        self._write = write
        self._changed = threading.Condition()
        self._holders: set[int] = set()  # threads
        self._value: Any = None
        self._before: Any = None

    @contextmanager
    def held(self, value: Any) -> Iterator[None]:
        """Set it to a value, None to leave it as it is; the last thread that shares it sets it back."""
        me = threading.get_ident()
        if me in self._holders:  # a run within a run: it cannot wait for itself
            with self._written(value):
                yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._holders or value == self._value)
            if not self._holders:
                self._value, self._before = value, self._read()
                if value is not None:
                    self._write(value)
            self._holders.add(me)
        try:
            yield
        finally:
            with self._changed:
                self._holders.remove(me)
                if not self._holders:
                    if value is not None:
                        self._write(self._before)
                    self._changed.notify_all()

    @contextmanager
    def _written(self, value: Any) -> Iterator[None]:
        before = self._read()
        if value is not None:
            self._write(value)
        try:
            yield
        finally:
            if value is not None:
                self._write(before)


def numpy_defaults() -> np.errstate:
    """Return numpy's own rules for floating-point errors, as a context or the decorator of a function.

    Examples
    --------
    >>> with np.errstate(under="raise"), numpy_defaults():
    ...     float(np.float64(1e-200) ** 2)
    0.0
    """
    return np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")


def _openblas() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(internal_api="openblas").lib_controllers)


def _set_blas_threads(wanted: int | dict[str, int]) -> None:
    for library in _openblas():
        library.set_num_threads(wanted if isinstance(wanted, int) else wanted.get(library.filepath, 1))


_BLAS = SharedSetting(lambda: {one.filepath: one.num_threads for one in _openblas()}, _set_blas_threads)


def one_blas_thread() -> AbstractContextManager[None]:
    """Have numpy and scipy multiply on one thread: on small matrices, several mostly wait for each other.

    Examples
    --------
    >>> import numpy as np
    >>> from threadpoolctl import threadpool_info
    >>> with one_blas_thread():
    ...     {one["num_threads"] for one in threadpool_info() if one["internal_api"] == "openblas"} <= {1}
    True
    """
    return _BLAS.held(1)
