"""How a network fails: in its own way, or because memory has run out."""

from __future__ import annotations

import torch

from gaussian_test.sampler.scores.score import Score

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # as RuntimeError says it


class NetworkError(RuntimeError):
    """A network has failed on states of its shape.

    Parameters
    ----------
    score : NetworkScore
        Whose network.
    what : str
        On what it failed.
    error : Exception
        Its own error.
    """

    def __init__(self, score: Score, what: str, error: Exception) -> None:
        super().__init__(f"the network {what} ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        self.score = score


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that memory has run out, on a GPU or on the CPU.

    Parameters
    ----------
    error : RuntimeError
        As torch raises it.

    Returns
    -------
    bool

    Examples
    --------
    >>> out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    True
    """
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
