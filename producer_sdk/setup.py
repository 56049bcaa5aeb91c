"""The one part of the build that pyproject.toml cannot say: an extension that may be missing.

`optional`: without a compiler the distribution is built all the same, and the path in Python is taken.
"""

from setuptools import Extension, setup

setup(ext_modules=[Extension("hotkey_sdk._fast", ["src/hotkey_sdk/_fast.c"], optional=True)])
