"""`make audit` calls nothing clean that was not looked up."""

import pytest
from support.audit import CLEAN, NOT_AUDITED, VULNERABLE, verdict

SOUND = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found on PyPI"}
FAULTY = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}],
}


@pytest.mark.parametrize(
    ("listed", "code", "said"),
    [
        ([SOUND, SOUND], CLEAN, "no known vulnerabilities; 2 of 2 packages looked up"),
        ([SOUND, SKIPPED], NOT_AUDITED, "NOT AUDITED: 1 of 2 packages looked up"),
        ([], NOT_AUDITED, "NOT AUDITED: 0 of 0 packages looked up"),
        ([FAULTY, SKIPPED], VULNERABLE, "c 2: PYSEC-1, fixed in 2.1"),
    ],
)
def test_only_what_was_looked_up_is_clean(
    listed: list[dict[str, object]], code: int, said: str
) -> None:
    found, message = verdict(listed)
    assert found == code
    assert message.startswith(said)
