"""Live reports of runs over HTTP, for a browser on the same machine.

Reports are rendered only on request, and nothing is written but the output of a run that a page resumes.
Only runs of the given folder are shown, looked up by name in its listing; only the files of `files.FILES`
are sent.
"""

from sweeper.serve.server import DEFAULT_PORT, Started, serve

__all__ = ["DEFAULT_PORT", "Started", "serve"]
