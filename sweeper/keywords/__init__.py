"""Refusal keyword lists, their matcher, and their agreement with labels."""
