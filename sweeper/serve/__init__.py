"""The report of runs that are still going, over HTTP, for a browser on the same machine.

Nothing is written and nothing is computed that a page does not ask for. Only runs of the folder that was
given are shown, looked up by name in a listing of it; of their files only those of `files.FILES` are sent.
"""

from sweeper.serve.server import DEFAULT_PORT, Started, serve

__all__ = ["DEFAULT_PORT", "Started", "serve"]
