"""Groups of configurations that differ only in average and learning rate, for finding controls."""

import json
from collections.abc import Sequence

from sweeper.analysis import Candidate


class RelatedConfigurations:
    """Candidates by everything but average and learning rate: every control is among them.

    Looking for each control among all candidates would take minutes at ten thousand of them.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._groups: dict[str, list[Candidate]] = {}
        for item in candidates:
            self._groups.setdefault(self._key(item), []).append(item)

    def of(self, candidate: Candidate) -> list[Candidate]:
        """The candidates that may be controls of `candidate`, itself included."""
        return self._groups.get(self._key(candidate), [])

    @staticmethod
    def _key(candidate: Candidate) -> str:
        shared = {
            k: v for k, v in candidate.config.items() if k not in ("average", "learning_rate")
        }
        return json.dumps(shared, sort_keys=True)
