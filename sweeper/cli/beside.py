"""The live page of `sweeper run --serve`."""

import contextlib
import shlex
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import show

if TYPE_CHECKING:  # It needs starlette.
    from sweeper.serve.beside import Beside


@contextlib.contextmanager
def live_page(root: Path, browser: bool) -> Iterator[None]:
    """Serve a run while it lasts; print the address once it is known, and open it if that is asked for."""
    from sweeper.serve.beside import serving

    ended = threading.Event()
    with serving(root) as beside:
        threading.Thread(target=_tell, args=(beside, browser, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            if (root / "run.json").exists():
                again = shlex.join(["sweeper", "serve", str(root)])
                show.note(f"the live page ends with the run; show it again: {again}")


def _tell(beside: "Beside", browser: bool, ended: threading.Event) -> None:
    address = beside.address()
    if ended.is_set():
        return
    if not address:
        show.note("the live page could not be started; the sweep goes on without it")
        return
    show.line(f"live page: {address}   (until the run ends)")
    if browser and not webbrowser.open(address):
        show.note("no browser was found here: open the address in one")
