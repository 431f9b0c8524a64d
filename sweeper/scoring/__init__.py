"""Responses of a readout, and what they are worth."""
