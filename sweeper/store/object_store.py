"""Object stores by their address, and how files get there and back: S3, Google, Azure, folders."""

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from pyarrow import ArrowException, fs

from sweeper.errors import MirrorError

CHUNK_BYTES = 8 * 1024**2
"""Checkpoints are copied in parts of this size."""


UNAVAILABLE = (OSError, ArrowException)
"""What pyarrow raises if a store is unavailable."""

_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|PERMISSION_DENIED|"
    r"UNAUTHENTICATED|OAuth2 access token|Authentication(Exception|Failed)|Authorization\w+"
)
"""How S3, Google and Azure report rejected credentials. Retrying does not help."""

_AZURE = (
    "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, `az login`, or a managed identity"
)

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth login`, or the machine's role",
    "abfs": _AZURE,
    "abfss": _AZURE,
    "file": "the permissions of the folder",
}
"""Where the file system of each URL scheme finds its credentials."""


def open_store(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a mirror and the path in it, by the scheme of its URL.

    Credentials, region and endpoint (AWS_REGION, AWS_ENDPOINT_URL) are taken from the environment.

    Args:
        url: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX,
            or file:///FOLDER.

    Raises:
        MirrorError: not a URL of this form, or this build of pyarrow lacks the file system.
        OSError: the store is unavailable.
    """
    limit = "?retry_limit_seconds=10" if url.startswith("gs://") else ""  # Else fifteen minutes.
    try:
        store, place = fs.FileSystem.from_uri(url + limit)
    except (ValueError, NotImplementedError) as error:
        raise MirrorError(
            f"invalid compute.mirror {url}: {first_line(error)}; expected s3://BUCKET/PREFIX, "
            "gs://BUCKET/PREFIX, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX or file:///FOLDER",
            code="mirror.address",
            url=url,
        ) from None
    return store, place


def put(store: fs.FileSystem, place: str, source: BinaryIO) -> None:
    """Upload a file; in a folder, it has its name once it is whole.

    Raises:
        OSError: the store is unavailable.
    """
    if isinstance(store, fs.LocalFileSystem):
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.tmp")
        with fresh.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
            target.flush()
            os.fsync(target.fileno())
        fresh.replace(path)
        return
    with store.open_output_stream(place) as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def fetch(store: fs.FileSystem, place: str, path: Path) -> None:
    """Download a large file, which has its name once it is whole.

    Raises:
        OSError: the store is unavailable, or the file cannot be written.
    """
    fresh = path.with_name(f".{path.name}.tmp")
    with store.open_input_stream(place) as source, fresh.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)
    fresh.replace(path)


def is_worth_a_retry(error: BaseException) -> bool:
    """Whether a failure may pass: the store is unavailable, and did not reject the credentials."""
    return isinstance(error, UNAVAILABLE) and not (
        isinstance(error, PermissionError) or _REFUSED.search(str(error))
    )


def first_line(error: BaseException | None) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
