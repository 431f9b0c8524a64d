"""A candidate by what a person types."""

import difflib
from collections.abc import Sequence

from sweeper.analysis.candidate import Candidate
from sweeper.errors import RunFolderError

MOST_NAMED = 5
"""So many of several matches are named."""


def find_candidate(candidates: Sequence[Candidate], text: str, where: str) -> Candidate:
    """A configuration by id or by an unambiguous beginning of it.

    Args:
        candidates: Of a run.
        text: The id or its beginning.
        where: The run, for the message.

    Raises:
        RunFolderError: none or several match; the nearest, or some of the several, are named.
    """
    found = [item for item in candidates if item.config_id.startswith(text)]
    exact = [item for item in found if item.config_id == text]
    if exact or (len(found) == 1 and text):
        return (exact or found)[0]
    if found:
        some = ", ".join(item.config_id for item in found[:MOST_NAMED])
        more = ", ..." if len(found) > MOST_NAMED else ""
        hint = f"give more of it: {some}{more}"
    else:
        names = [item.config_id for item in candidates]
        # An id is short and random: what people get wrong is a letter, not the first ones.
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)
        hint = f"the nearest is `{near[0]}`" if near else "it has no records yet"
    raise RunFolderError(
        f"{len(found)} configurations of {where} begin with `{text}`; {hint}; "
        "`sweeper front` lists them"
    )
