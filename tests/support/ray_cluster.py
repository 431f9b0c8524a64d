"""A Ray cluster of one node for a test, with ports, files and processes of its own, and a dashboard."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 120.0

SINGLE_PROCESS = [
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]
"""Everything started below ends with the process that this starts."""


def can_be_alone() -> bool:
    """Whether this machine lets a test keep its processes apart."""
    try:
        return (
            subprocess.run([*SINGLE_PROCESS, "true"], capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@contextmanager
def ray_cluster(folder: Path, **environment: str) -> Iterator[str]:
    """The address of its dashboard; everything of it has ended afterwards.

    Args:
        folder: For logs. Ray's own files lie in a short path beside it: sockets have names of 107 bytes.
        environment: On top of this process's.
    """
    home = Path(f"/tmp/swr-{os.getpid()}-{free_port()}")
    home.mkdir()
    port, dashboard = free_port(), free_port()
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"HOME": str(home), "RAY_TMPDIR": str(home), "PATH": search, "OMP_NUM_THREADS": "1"}
    command = [
        *(*SINGLE_PROCESS, "ray", "start", "--head", "--block", "--num-cpus=1", "--num-gpus=0"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=true"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(
            f"--dashboard-agent-listen-port={free_port()}",
            f"--ray-client-server-port={free_port()}",
        ),
        "--disable-usage-stats",
    ]
    with (folder / "ray.log").open("wb") as log:
        cluster = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **own, **environment}
        )
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait(cluster, address, folder / "ray.log")
        yield address
    finally:
        cluster.kill()
        cluster.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait(cluster: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
            return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # It is there, and asks for a token.
                return
        except OSError:
            pass
        assert cluster.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.2)
