"""Groups of configurations that differ only in average and learning rate, for finding controls."""

import json
from collections.abc import Sequence
from typing import Any

from sweeper.analysis import Candidate


class RelatedConfigurations:
    """Candidates by everything but average and learning rate: every control is among them.

    Looking for each control among all candidates would take minutes at ten thousand of them.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._groups: dict[str, list[Candidate]] = {}
        self._twins: dict[tuple[str, Any], list[Candidate]] = {}
        self._keys: dict[str, str] = {}
        for item in candidates:
            self._groups.setdefault(self._key(item), []).append(item)
            self._twins.setdefault(self._twin_key(item), []).append(item)

    def of(self, candidate: Candidate) -> list[Candidate]:
        """Those that differ in average and learning rate alone, the candidate included."""
        return self._groups.get(self._key(candidate), [])

    def twins(self, candidate: Candidate) -> list[Candidate]:
        """Those that differ in the average alone, the candidate included."""
        return self._twins.get(self._twin_key(candidate), [])

    def _twin_key(self, candidate: Candidate) -> tuple[str, Any]:
        return self._key(candidate), candidate.config.get("learning_rate")

    def _key(self, candidate: Candidate) -> str:
        known = self._keys.get(candidate.config_id)
        if known is None:
            shared = {
                k: v for k, v in candidate.config.items() if k not in ("average", "learning_rate")
            }
            known = self._keys[candidate.config_id] = json.dumps(shared, sort_keys=True)
        return known
