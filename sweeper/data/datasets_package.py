"""The package `datasets`, imported only where it is needed: local files do not need it."""

from typing import Any

from sweeper.errors import MissingExtraError


def datasets_package() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "data sets from the hub and folders of data files need the package datasets; install "
            "`sweeper-llm[train]`, or use a local .json, .jsonl or .csv file"
        ) from None
    return datasets
