"""The lines of a decision."""

from sweeper.analysis.decision import Decision, weights_text
from sweeper.cli import show


def outcome(decision: Decision | str | None, *, told: bool = False) -> None:
    """The outcome of a decision, or why there was nothing to decide; nothing where it is left out.

    `told` leaves out what the reason of a recommendation says: the last test of a finished decision.
    """
    if decision is None:
        return
    if isinstance(decision, str):
        show.line(decision)
        return
    told = told and decision.complete
    for step in decision.steps[:-1] if told else decision.steps:
        show.line(f"{step.place}. {step.config_id} {step.verdict}")
        for test in step.weights:
            show.line(f"   {weights_text(test)}")
    for note in decision.notes:
        show.line(f"note: {note}")
    if told:
        return
    spent = f"error level {decision.error:.3g} for all {decision.planned} together"
    show.line(f"decision: {decision.sentence} ({spent})")
