"""Rows, formats, suites, splits, chat formats and tokens; no torch."""
