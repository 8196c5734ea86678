"""The one kind of error that a user can cause and fix: a plain sentence with value, expectation and next step."""

from collections.abc import Iterator
from contextlib import contextmanager


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
        super().__init__(" ".join(message.splitlines()))  # names of files may hold line breaks


@contextmanager
def user_input() -> Iterator[None]:
    """Turn the refusals of the rooms below (ValueError, OSError) into :class:`UserError`.

    To be put around the reading and checking of what the user gave, never around the computation: an error there is ours.

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
