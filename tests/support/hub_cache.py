"""The cache of the hub: an empty one without a network, or one that is filled from `fake_hub`."""

from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from support.fake_hub import FakeHub
from sweeper.data import hub


def use_cache(patch: pytest.MonkeyPatch, folder: Path, *, offline: bool = True) -> Path:
    """Make a folder the cache of the hub, with nothing found before; returns it."""
    patch.setattr(constants, "HF_HUB_CACHE", str(folder))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.with_name(f"{folder.name}-arrow"))
    patch.setattr(hub, "snapshots", {})
    if offline:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def use_hub(patch: pytest.MonkeyPatch, server: FakeHub) -> None:
    """Make a fake hub the one that is asked."""
    patch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
