"""The file of public keys, read again when it changes: a signing key is replaced under running clients.

A Kubernetes Secret that is mounted changes in place: what is mounted is a link to another file then. It must
not know what the keys are for.
"""

from __future__ import annotations

from pathlib import Path

from hotkey_sdk.routing.envelope import KeyFormatError, PublicKeys

BYTES_AT_MOST = 64 * 1024


def read_keys(path: Path) -> PublicKeys:
    """The keys in the file, at least one. Raises `ValueError` or `OSError`."""
    with path.open("rb") as file:
        data = file.read(BYTES_AT_MOST + 1)
    if len(data) > BYTES_AT_MOST:
        raise KeyFormatError(f"{path} has more than the {BYTES_AT_MOST} bytes that are allowed")
    keys = PublicKeys.parse(data.decode())
    if not keys.by_id:
        raise KeyFormatError(f"{path} holds no key, expected lines `keyId:base64`")
    return keys


class KeyFile:
    """A file whose keys were read when the client was made."""

    def __init__(self, path: Path, keys: PublicKeys) -> None:
        self.refusal = ""  # why the keys from before are kept
        self._path = path
        self._keys = keys
        self._seen: tuple[int, ...] | None = None

    def look(self) -> PublicKeys | None:
        """Other keys than before, where the file has them now; None where not, or where it cannot be read."""
        try:
            found = self._path.stat()
            seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if seen == self._seen and not self.refusal:
                return None
            keys = read_keys(self._path)
        except (OSError, ValueError) as error:
            self.refusal = str(error)
            return None
        self._seen, self.refusal = seen, ""
        if keys == self._keys:
            return None
        self._keys = keys
        return keys
