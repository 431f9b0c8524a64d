"""Run folders seen from outside: open, list, clean, verify."""
