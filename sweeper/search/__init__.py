"""Optuna's part: which optimizer settings to train next, and a study of every sweep.

The only package importing optuna. Records stay the source of truth: both are made from them anew.
"""

from sweeper.search.ask import Told, next_points
from sweeper.search.storages import shown_url
from sweeper.search.study import distributions, open_study, project, project_into, to_choice

__all__ = [
    "Told",
    "distributions",
    "next_points",
    "open_study",
    "project",
    "project_into",
    "shown_url",
    "to_choice",
]
