"""A stand-in for the parameter slices of a group, made from plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from srr_onnx.analysis.groups import Role


class FakeSlices:
    def __init__(self, *filters, scales=(), group_id="g0"):
        self._parts = {Role.FILTER: list(map(np.asarray, filters)), Role.SCALE: list(map(np.asarray, scales))}
        self.group_id = group_id
        self.units = len((self._parts[Role.FILTER] + self._parts[Role.SCALE])[0])

    def with_role(self, role):
        return self._parts.get(role, [])

    def permuted(self, order):
        picked = {role: [rows[order] for rows in parts] for role, parts in self._parts.items()}
        return FakeSlices(*picked[Role.FILTER], scales=picked[Role.SCALE], group_id=self.group_id)


@pytest.fixture(scope="session")
def make_slices():
    return FakeSlices


@pytest.fixture(autouse=True)
def strict_numbers():
    with np.errstate(all="raise"):
        yield
