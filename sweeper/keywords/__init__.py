"""Refusal keyword lists, how they are matched, and how well they agree with human labels."""
