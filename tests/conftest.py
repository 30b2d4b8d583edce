"""Hypothesis profiles: the same moderate draw on every run, or a wide one with `--hypothesis-profile=sweep`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("default", max_examples=60, derandomize=True, **_common)
settings.register_profile("sweep", max_examples=2000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
