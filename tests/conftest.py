"""Settings of the whole test run: how many random models are tried, and from which seeds."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

_COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
# The default run tries the same models every time: a failure belongs to the change under test, not to chance.
settings.register_profile("default", max_examples=100, derandomize=True, database=None, **_COMMON)
settings.register_profile("quick", max_examples=15, derandomize=True, database=None, **_COMMON)
settings.register_profile("nightly", max_examples=20_000, derandomize=False, **_COMMON)
# The first failing example as it was found, for a look at many failures in little time.
settings.register_profile(
    "hunt", max_examples=2_000, derandomize=False, database=None, phases=[Phase.generate], **_COMMON
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _small_folder(tmp_path: object, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own, so that nothing is written into the repository or the cache."""
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
