"""Generates the responses of readouts and computes their metrics."""
