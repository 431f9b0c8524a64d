"""Builders, fakes for injected faults, and servers that the tests share."""
