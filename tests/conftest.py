"""What holds for all tests: properties are judged by what they find, never by how fast a busy machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow]
settings.register_profile("hotkey", deadline=None, suppress_health_check=_SLOW, max_examples=40)
settings.register_profile("thorough", deadline=None, suppress_health_check=_SLOW, max_examples=200)
settings.load_profile("hotkey")
