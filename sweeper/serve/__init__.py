"""Live reports of runs over HTTP, for a browser on the same machine.

Nothing is written, and reports are rendered only on request. Only runs of the given folder are shown,
looked up by name in its listing; only the files of `files.FILES` are sent.
"""

from sweeper.serve.server import DEFAULT_PORT, Started, serve

__all__ = ["DEFAULT_PORT", "Started", "serve"]
