"""Errors by their code and values; `tests/test_messages.py` keeps their wording."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import SweeperError


@contextmanager
def raises(code: str, **values: Any) -> Iterator[pytest.ExceptionInfo[SweeperError]]:
    """What is done within fails with an error of this code, and at least these values."""
    with pytest.raises(SweeperError) as caught:
        yield caught
    check(caught.value, code, **values)


def check(error: SweeperError, code: str, **values: Any) -> None:
    """An error has this code and at least these values; a path counts as its text."""
    wanted = {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
    found = {key: value for key, value in error.values.items() if key in wanted}
    assert (error.code, found) == (code, wanted), str(error)
