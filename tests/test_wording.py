"""Numbers in the form that people read."""

from __future__ import annotations

import pytest

from srr_onnx.wording import counted, removed


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, ("round",), "1 round"),
        (0, ("sample",), "0 samples"),
        (1062, ("sample",), "1,062 samples"),
        (1, ("bias", "biases"), "1 bias"),
        (2, ("bias", "biases"), "2 biases"),
    ],
)
def test_one_of_a_thing_is_no_plural(number, noun, text):
    assert counted(number, *noun) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(100, 56, "-44.0 %"), (100, 190, "+90.0 %"), (100, 100, "0.0 %"), (10**6, 10**6 + 1, "0.0 %"), (0, 5, "-")],
)
def test_what_grows_has_a_sign_too(before, after, text):
    assert removed(before, after) == text
