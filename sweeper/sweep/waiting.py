"""One line to the user where no trial starts, which would else look like a long first trial."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune

_log = logging.getLogger("sweeper.sweep.waiting")

PATIENCE_SECONDS = 60.0
"""How long trials may wait before it is said; a worker that imports torch on an idle machine needs ten."""


class WaitingNotice(tune.Callback):
    """Warns once for each time in which trials wait, none runs, and none has started for a minute.

    Args:
        wanted: The resources of a trial.
        clock: Seconds that only grow.
    """

    def __init__(
        self, wanted: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wanted = {kind: amount for kind, amount in wanted.items() if amount}
        self._clock = clock
        self._since: float | None = None
        self._said = False

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles callbacks to restore runs, which we never do."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `ray.tune.Callback`; called after each event, and at least every few seconds."""
        # Trials are never removed, and those that run are among the last ones.
        if any(trial.status == "RUNNING" for trial in reversed(trials)) or not any(
            trial.status == "PENDING" for trial in trials
        ):
            self._since, self._said = None, False
            return
        if self._since is None:
            self._since = self._clock()
        if not self._said and self._clock() - self._since >= PATIENCE_SECONDS:
            self._said = True
            _log.warning(
                waiting_text(self._wanted, ray.cluster_resources(), ray.available_resources())
            )


def waiting_text(
    wanted: Mapping[str, float], whole: Mapping[str, float], free: Mapping[str, float]
) -> str:
    """What to say of trials that wait.

    Args:
        wanted: Resources of one trial, more than 0 each.
        whole: Those of the cluster; a kind that is left out is 0.
        free: Those which nobody has reserved, these trials included.
    """
    needs = " and ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
    shares = ", ".join(f"{free.get(kind, 0):g} of {whole.get(kind, 0):g} {kind}" for kind in wanted)
    return (
        f"no trial has started for {PATIENCE_SECONDS:.0f} s: each needs {needs or 'nothing'}; not "
        f"reserved: {shares or 'everything'}. It starts once Ray has room for it and its worker has "
        "loaded, which takes long on a busy machine; `ray status` says who holds what"
    )
