"""The error for mistakes that a user can fix."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gaussian_test.text import printable


class UserError(ValueError):
    """Bad input. Its message is one sentence; the command line prints it without a traceback and exits with code 2.

    Examples
    --------
    >>> raise UserError("steps = 0 is not a number of reverse steps: give at least 1")
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: steps = 0 is not a number of reverse steps: give at least 1
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(" ".join(message.splitlines())))  # file names may hold line breaks and escapes of a terminal


@contextmanager
def lacking(sentence: str) -> Iterator[None]:
    """Turn a LookupError about a result into a :class:`UserError`: a sentence with ``{}`` for the name of what is not there.

    Examples
    --------
    >>> with lacking("a.nc lacks {}: run again"):
    ...     {}["gap"]
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: a.nc lacks 'gap': run again
    """
    try:
        yield
    except LookupError as error:
        what = re.search("'[^']*'", str(error))
        raise UserError(sentence.format(printable(what[0]) if what else "some of its values")) from error


@contextmanager
def user_input() -> Iterator[None]:
    """Turn ValueError and OSError of lower layers into :class:`UserError`.

    Use it around reading and checking of user input, never around computation, where an error is a bug.

    Examples
    --------
    >>> with user_input():
    ...     float("four")
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: could not convert string to float: 'four'
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"there is not enough memory ({error}): ask for less") from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.strerror and error.filename else str(error)
        raise UserError(" ".join(what.split())) from error
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
