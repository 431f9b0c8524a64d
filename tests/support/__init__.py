"""Builders, fakes for injected faults, and servers that the tests share."""

import os

# Readline in pytest's first process sets these for the processes that share the tests. No terminal is
# there, and output shall be as wide as in one process.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)
