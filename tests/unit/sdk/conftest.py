"""Both paths of a record."""

from tests.sdk_paths import path, pytest_terminal_summary

__all__ = ["path", "pytest_terminal_summary"]
