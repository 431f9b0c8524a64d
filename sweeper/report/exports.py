"""What a page shows of the files of other trainers, for the configurations that people ask for."""

from collections.abc import Sequence
from typing import Any

from sweeper.analysis import BASE_ROLE, Candidate, Front, Recommendation
from sweeper.errors import SweeperError
from sweeper.export import FORMATS, Origin, export_texts, make_job
from sweeper.export.job import openable
from sweeper.report.local_paths import without_folders
from sweeper.spec import SweepSpec

MOST = 8
"""The most configurations whose files are in a page; the command is there for every one."""

TITLES = {
    "trl": "TRL",
    "axolotl": "Axolotl",
    "llamafactory": "LLaMA-Factory",
    "transformers": "Transformers",
    "accelerate": "Accelerate",
    "yaml": "values",
}
"""The formats that are shown, with the names of their trainers."""


def export_block(front: Front, found: Recommendation, spec: SweepSpec, run: str) -> dict[str, Any]:
    """The files for the page's script: titles of formats, texts, and files by configuration.

    `of` maps an id and a format to pairs of a name and the index of its text, or to the sentence that says
    why there are none. Equal texts are there once. Local paths are shortened, as a page is often sent on.

    Args:
        front: Of the sweep.
        found: Its recommendation, whose configurations come first.
        spec: Of the sweep.
        run: The name of the run folder.
    """
    places: dict[str, int] = {}
    of: dict[str, Any] = {}
    for item in _asked_for(front, found):
        recommended = item is found.chosen
        origin = Origin(run, found.compared, recommended, found.base)
        of[item.config_id] = {fmt: _files(item, spec, fmt, origin, places) for fmt in TITLES}
    formats = [[name, title] for name, title in TITLES.items() if name in FORMATS]
    model = spec.model.path  # Alone, a path is known whole, even if it has spaces.
    texts = without_folders([*places, model, openable(model)])[: len(places)]
    return {"formats": formats, "texts": texts, "of": of}


def _asked_for(front: Front, found: Recommendation) -> Sequence[Candidate]:
    """The recommended one and its controls, then the front."""
    asked = [found.chosen, found.nearest, found.unaveraged, found.default, *front.members]
    known = [item for item in asked if item is not None and item.role != BASE_ROLE]
    return list({item.config_id: item for item in known}.values())[:MOST]


def _files(
    item: Candidate, spec: SweepSpec, fmt: str, origin: Origin, places: dict[str, int]
) -> list[list[Any]] | str:
    try:
        texts = export_texts(make_job(item, spec, 1, None, origin), fmt)
    except SweeperError as error:
        return str(error)
    return [[name, places.setdefault(text, len(places))] for name, text in texts.items()]
