"""Why something is undefined, score by score: the attribute ``reason`` of a variable, taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence


def by_score(joined: str, scores: Sequence[str]) -> dict[str, str]:
    """Return the reasons of a variable by the scores that they speak of.

    Parameters
    ----------
    joined : str
        The attribute: ``"<reason>; <score>, <score>: <reason>; <score>: <reason>"``.
    scores : sequence of str
        Names of the scores.

    Returns
    -------
    dict of str to str
        Under an empty name what speaks of none in particular.

    Examples
    --------
    >>> by_score("a: too few; add some; b, c: none", ["a", "b", "c"])
    {'a': 'too few; add some', 'b': 'none', 'c': 'none'}
    >>> by_score("no labels; a: too few", ["a", "b"])
    {'': 'no labels', 'a': 'too few'}
    """
    names = "|".join(map(re.escape, sorted(scores, key=len, reverse=True))) or "(?!)"
    general, *pieces = re.split(rf"(?:^|; )((?:{names})(?:, (?:{names}))*): ", joined)
    found = {"": general} if general else {}
    for named, reason in zip(pieces[::2], pieces[1::2], strict=True):
        for score in re.findall(rf"(?:^|, )({names})(?=, |$)", named):
            found[score] = f"{found[score]}; {reason}" if score in found else reason
    return found


def of_score(joined: str, score: str, scores: Sequence[str]) -> str:
    """Return what is said of a score and of all of them; empty where that is nothing.

    Parameters
    ----------
    joined : str
        The attribute, as in :func:`by_score`.
    score : str
        The score.
    scores : sequence of str
        Names of all.

    Returns
    -------
    str

    Examples
    --------
    >>> [of_score("no labels; a: too few", score, ["a", "b"]) for score in ("a", "b")]
    ['no labels; too few', 'no labels']
    """
    found = by_score(joined, scores)
    return "; ".join(filter(None, (found.get(""), found.get(score))))
