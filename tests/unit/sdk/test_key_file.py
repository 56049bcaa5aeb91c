"""Public keys in a file that changes under a running client, as a Secret that is mounted does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hotkey_sdk._key_file import BYTES_AT_MOST, KeyFile, read_keys
from hotkey_sdk.routing.envelope import KeyFormatError, SigningKey

OLD, NEW = (SigningKey.from_bytes(bytes([number]) * 32) for number in (1, 2))
BOTH = f"{OLD.public_line}\n{NEW.public_line}\n"


def mount(folder: Path, version: str, text: str) -> None:
    """As the kubelet does: a folder for the version, and a link to it that is replaced in one step."""
    (folder / version).mkdir(parents=True)
    (folder / version / "public.keys").write_text(text)
    (folder / "fresh").symlink_to(version)
    (folder / "fresh").rename(folder / "..data")
    if not (folder / "public.keys").is_symlink():
        (folder / "public.keys").symlink_to("..data/public.keys")


def watched(path: Path) -> KeyFile:
    return KeyFile(path, read_keys(path))


def test_a_mounted_secret_that_changes_is_read_again_and_only_then(tmp_path: Path) -> None:
    mount(tmp_path, "1", OLD.public_line)
    file = watched(tmp_path / "public.keys")
    assert file.look() is None

    mount(tmp_path, "2", BOTH)
    changed = file.look()

    assert changed is not None
    assert set(changed.by_id) == {OLD.key_id, NEW.key_id}
    assert file.look() is None


def test_a_file_that_is_written_over_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "public.keys"
    path.write_text(BOTH)
    file = watched(path)

    path.write_text(NEW.public_line)

    changed = file.look()
    assert changed is not None
    assert set(changed.by_id) == {NEW.key_id}


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (os.unlink, "No such file"),
    "empty": (lambda path: path.write_text(""), "holds no key"),
    "half written": (lambda path: path.write_text(BOTH[:-20]), "line 2"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe"), "decode"),
    "without an end": (lambda path: path.write_bytes(b"#" * (BYTES_AT_MOST + 1)), "allowed"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED.keys())
def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were_until_it_can(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "public.keys"
    path.write_text(OLD.public_line)
    file = watched(path)

    spoil(path)

    assert file.look() is None
    assert words in file.refusal
    path.write_text(BOTH)
    changed = file.look()
    assert changed is not None
    assert (len(changed.by_id), file.refusal) == (2, "")


def test_the_same_keys_in_a_new_file_are_no_change(tmp_path: Path) -> None:
    mount(tmp_path, "1", BOTH)
    file = watched(tmp_path / "public.keys")

    mount(tmp_path, "2", f"# the newer one first\n{NEW.public_line}\n{OLD.public_line}\n")

    assert file.look() is None


def test_a_file_without_an_end_is_refused_when_a_client_is_made(tmp_path: Path) -> None:
    path = tmp_path / "public.keys"
    path.write_text(BOTH + "#" * BYTES_AT_MOST)

    with pytest.raises(KeyFormatError, match="allowed"):
        read_keys(path)
