"""A target names what is wanted, and refuses what cannot be."""

from __future__ import annotations

import pytest

from srr_onnx.errors import TargetError, UnknownNameError
from srr_onnx.targets.target import PROVIDERS, Target, short_name


@pytest.mark.parametrize(
    ("provider", "full"),
    [("cpu", "CPUExecutionProvider"), ("cuda", "CUDAExecutionProvider"), ("VitisAIExecutionProvider",) * 2],
)
def test_short_and_full_names_lead_to_the_runtimes_name(provider, full):
    assert Target(provider).execution_provider == full
    assert Target(full).execution_provider == full


def test_full_names_have_their_short_ones():
    assert {short_name(full) for full in PROVIDERS.values()} == set(PROVIDERS)
    assert short_name("VitisAIExecutionProvider") == "VitisAIExecutionProvider"


def test_a_mistyped_provider_is_an_unknown_name():
    with pytest.raises(UnknownNameError, match="unknown provider 'opnvino': did you mean 'openvino'"):
        Target("opnvino")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"threads": -1}, r"threads \(=-1\)"),
        ({"batch": 0}, r"batch \(=0\)"),
        ({"options": {"device_id": "1"}}, "'device_id' would change nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, text):
    with pytest.raises(TargetError, match=text):
        Target(**wrong)


def test_the_json_form_holds_all_settings():
    target = Target("cuda", threads=2, batch=4, options={"device_id": "0"})
    assert target.to_json() == {"provider": "cuda", "threads": 2, "batch": 4, "options": {"device_id": "0"}}
