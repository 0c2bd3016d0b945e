"""Fetch packages of the npm registry as files, and read from them; no Node.js is needed.

Reads a registry, or a folder where the packages lie; makes contents of files by path. A package with another checksum
than the caller states is refused before anything in it is read, and nothing is unpacked to disk.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Package:
    """What the manifest says of one package.

    Attributes:
        name: Name in the npm registry.
        version: The one version that the checksum is of.
        integrity: `sha512-` and the checksum in base64, as npm writes it.
        vendor: What the images of this package are called in the data.
        licence: SPDX expression of the images.
        author: Whom to name with them.
        members: Folder of the images inside the package.
    """

    name: str
    version: str
    integrity: str
    vendor: str
    licence: str
    author: str
    members: str

    @property
    def file(self) -> str:
        """Name of the file, as `npm pack` calls it."""
        return f"{self.name}-{self.version}.tgz"


def fetch(package: Package, registry: str, folder: Path, tell: Callable[..., None]) -> Path:
    """Download a package unless it is there, and check it.

    Args:
        package: What to fetch.
        registry: Address of an npm registry.
        folder: Where packages lie, and are put.
        tell: Called with the bytes that have come as `completed`, and the bytes in all, or None, as `total`.

    Returns:
        The file, whose checksum is the manifest's.

    Raises:
        ClickException: The package cannot be had, or is another one.
    """
    path = folder / package.file
    if not path.exists():
        address = f"{registry.rstrip('/')}/{package.name}/-/{package.file}"
        part = path.with_suffix(".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                download(address, part, tell)
                check_integrity(part, package, f"{address}: nothing of it was kept")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        # urllib's own errors are OSErrors, a bad address is a ValueError.
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise click.ClickException(
                f"{address} cannot be fetched: {problem}; give --registry, or put the file into --packages"
            ) from problem
    check_integrity(path, package, f"{path}: delete it, and it is fetched again")
    return path


def download(address: str, path: Path, tell: Callable[..., None]) -> None:
    """Write what is at an address to a file, chunk by chunk; `tell` as in `fetch`."""
    with urllib.request.urlopen(address) as answer, path.open("wb") as file:
        length = answer.headers.get("Content-Length")
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            tell(completed=file.tell(), total=length and int(length))


def check_integrity(path: Path, package: Package, place: str) -> None:
    """Raise if a file is not the package that is meant; `place` ends the message: where it is from, and what to do."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != package.integrity:
        raise click.ClickException(
            f"not {package.name} {package.version}, whose checksum is {package.integrity}, but {found}, is at {place}"
        )


def read_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the contents of those files of a package whose path is wanted, by path."""
    with tarfile.open(path) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile() and wanted(member.name)
        }
