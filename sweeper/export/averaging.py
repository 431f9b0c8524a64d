"""The averaging as a separate callback file, since no trainer has an option for it."""

from importlib import resources
from string import Template

from sweeper.errors import SweeperError
from sweeper.export.header import header
from sweeper.export.job import ExportJob

CALLBACK_NAME = "ema_callback.py"
_TEMPLATE = "ema_callback.py.txt"


def callback_source(job: ExportJob) -> str:
    """Python source of the callback with this configuration's settings; needs torch and transformers.

    Raises:
        SweeperError: the configuration has no averaging and needs none.
    """
    if job.averaging is None:
        raise SweeperError(
            f"configuration {job.candidate.config_id} has no averaging, so it needs no callback"
        )
    text = (resources.files("sweeper.export") / _TEMPLATE).read_text(encoding="utf-8")
    settings = "\n".join(
        f"{name.upper()} = {value!r}" for name, value in job.averaging._asdict().items()
    )
    fixed = header(job, "transformers.Trainer and the trainers of TRL")
    return Template(text).substitute(header=fixed, settings=settings)
