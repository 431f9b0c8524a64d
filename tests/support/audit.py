"""`make audit`: the pinned packages against published vulnerabilities, and how many were really looked up.

pip-audit ends with "No known vulnerabilities found" where its service knew none of the packages, too: with
a package mirror that lacks that service it is all of them. Here that is said, and is no success.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def verdict(dependencies: list[dict[str, Any]]) -> tuple[int, str]:
    """Exit code and message of what `pip-audit -f json` lists."""
    skipped = [item["name"] for item in dependencies if "skip_reason" in item]
    found = [
        f"{item['name']} {item['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault['fix_versions']) or 'no version'}"
        for item in dependencies
        for fault in item.get("vulns", ())
    ]
    looked_up = f"{len(dependencies) - len(skipped)} of {len(dependencies)} packages looked up"
    if found:
        return VULNERABLE, "\n".join([*found, f"{len(found)} known vulnerabilities; {looked_up}"])
    if skipped or not dependencies:
        return NOT_AUDITED, (
            f"NOT AUDITED: {looked_up}; the vulnerability service does not know the others or cannot be "
            "reached from here (run it where the public package index can be)"
        )
    return CLEAN, f"no known vulnerabilities; {looked_up}"


def _asked(service: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps"]
    command += ["--disable-pip", "-f", "json", "-s", service, "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError):  # It could not be reached: there is no report.
        return []


def main() -> int:
    """Ask PyPI, and OSV where PyPI did not know every package."""
    code, message = verdict(_asked("pypi"))
    if code == NOT_AUDITED:
        other, said = verdict(_asked("osv"))
        code, message = (other, said) if other != NOT_AUDITED else (code, message)
    print(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
