import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.finetuning.schedule import Average, rate_at  # noqa: E402


def test_the_rate_rises_and_falls_along_a_cosine():
    rates = [rate_at(step, 100, 0.05) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[5] == 1.0
    assert rates[5 + 95 // 2] == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95)))
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_have_a_rate_too(steps):
    assert all(0 < rate_at(step, steps, 0.05) <= 1 for step in range(steps))


def module(value):
    found = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        for tensor in (found.weight, found.running_mean):
            tensor.fill_(value)
    return found


def test_an_average_of_what_stays_is_that():
    found = module(2.0)
    average = Average(found, 0.9)
    for _ in range(5):
        average.update(found)
    with average.applied(found):
        assert found.weight.tolist() == [2.0] * 3


def test_an_average_follows_and_is_taken_off_again():
    found = module(0.0)
    average = Average(found, 0.5)
    with torch.no_grad():
        found.weight.fill_(1.0)
        found.running_mean.fill_(1.0)
    # the decay grows: 2/11, 3/12, 4/13
    average.update(found)
    average.update(found)
    wanted = 1 - (2 / 11) * (3 / 12)
    with average.applied(found):
        assert found.weight.tolist() == pytest.approx([wanted] * 3)
        assert found.running_mean.tolist() == pytest.approx([wanted] * 3)
    assert found.weight.tolist() == [1.0] * 3


def test_an_average_goes_on_from_its_state():
    first, second = module(0.0), module(0.0)
    one, other = Average(first, 0.9), Average(second, 0.9)
    with torch.no_grad():
        first.weight.fill_(3.0)
    one.update(first)
    other.load_state_dict(one.state_dict())
    one.update(first)
    other.update(first)
    with one.applied(first), other.applied(second):
        assert torch.equal(first.weight, second.weight)
