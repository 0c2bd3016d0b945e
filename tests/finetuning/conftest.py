"""Fine-tuning is tested where torch is installed."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py", "operators/*"]


def pytest_report_header() -> str:
    return "tests of fine-tuning are left out: they need torch" if collect_ignore_glob else ""
