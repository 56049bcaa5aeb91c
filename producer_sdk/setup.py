"""The one part of the build that pyproject.toml cannot say: an extension that may be missing.

`optional`: without a compiler the distribution is built all the same, and the path in Python is taken.
"""

from pathlib import Path

from setuptools import Extension, setup

HEADERS = sorted(str(path) for path in Path("c").glob("*.h"))

setup(ext_modules=[Extension("hotkey_sdk._fast", ["c/fast.c"], depends=HEADERS, optional=True)])
