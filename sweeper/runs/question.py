"""What a run folder answers: the spec of its sweep, or of its import."""

from sweeper.errors import RunFolderError
from sweeper.spec import ImportedSpec, SweepSpec, parse_results_spec
from sweeper.store.folder import RunFolder


def read_question(folder: RunFolder) -> SweepSpec | ImportedSpec:
    """The spec in a run folder.

    Raises:
        SpecError: spec.yaml was damaged.
        RunFolderError: it cannot be read.
    """
    try:
        text = folder.spec.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"cannot read {folder.spec}: {error}") from None
    return parse_results_spec(text, source=str(folder.spec))


def read_sweep(folder: RunFolder) -> SweepSpec:
    """The spec of a run that was trained here.

    Raises:
        SpecError, RunFolderError: see `read_question`; or the run was imported.
    """
    found = read_question(folder)
    if isinstance(found, SweepSpec):
        return found
    raise RunFolderError(
        f"{folder.root} was imported ({found.imported}): there are no weights and nothing to train here; "
        "`front`, `recommend`, `show`, `compare` and `report` read it",
        code="run.imported",
        path=folder.root,
    )
