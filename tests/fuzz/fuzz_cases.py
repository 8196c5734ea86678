"""How the fuzz runs: the same cases every time, other ones and ten times as many with ``--long``, and none of them may hang."""

import faulthandler
import signal
import sys
from contextlib import contextmanager

import hypothesis

SECONDS = 30  # of one case; the slowest takes two


class Hang(BaseException):
    """A case that took too long: no ordinary exception, which the code under test could take for one of its own."""


@contextmanager
def limit(seconds):
    """Fail what runs longer in python, and end the process, with every thread's traceback, where a library hangs."""

    def ring(*_):
        raise Hang(f"this case runs longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def fuzz(strategy, law, cases, long):
    """Try a law on cases of a strategy: the same ones every time, or ten times as many, and other ones, in the long version."""

    @hypothesis.settings(
        max_examples=10 * cases if long else cases,
        derandomize=not long,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def holds(case):
        with limit(SECONDS):
            law(case)

    holds()


def sentence(error):
    """Check that an error is one for the user: a line that says something."""
    message = str(error)
    assert message.strip()
    assert len(message.splitlines()) == 1, message
    assert "Traceback" not in message.replace("Traceback (most recent call last)", "", 1)  # which names and values may be
    assert len(message) < 2000
    message.encode()  # can be printed
    return message
