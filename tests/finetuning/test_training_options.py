import pytest

pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.errors import TrainingError
from srr_onnx.finetuning.options import FREE, TrainingOptions


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"lr": 0.0}, "lr is 0.0: give above 0"),
        ({"lr": float("inf")}, "lr is inf: give above 0"),
        ({"lr": float("nan")}, "lr is nan: give above 0"),
        ({"ema": 1.0}, "ema is 1.0: give at least 0 and below 1"),
        ({"held_out": 0.0}, "held_out is 0.0: give between 0 and 1"),
        ({"mixup": -1.0}, "mixup is -1.0: give at least 0"),
        ({"seed": 2**64}, "seed is 18446744073709551616: give a number below 2**64"),
        ({"optimizer": "adam"}, "optimizer is 'adam': give one of sgd, adamw"),
        ({"augment": ("flip", "turn")}, "augment is 'turn': give some of flip, crop, randaugment"),
        ({"batch": 5, "devices": 2}, "a batch of 5 cannot be shared among 2 processes: give a multiple of that"),
    ],
)
def test_settings_that_make_no_sense(setting, message):
    with pytest.raises(TrainingError) as caught:
        TrainingOptions(**setting)
    assert str(caught.value) == message


def test_the_usual_rate_follows_from_the_optimizer():
    assert (TrainingOptions().rate, TrainingOptions(optimizer="adamw").rate) == (0.01, 3e-4)
    assert TrainingOptions(lr=0.5).rate == 0.5


def test_what_decides_the_result_is_told_and_nothing_else():
    assert TrainingOptions().settle() == TrainingOptions(workers=3, checkpoint_every=7, batch=64).settle()
    assert TrainingOptions(lr=0.01).settle() == TrainingOptions().settle()
    assert not FREE & set(TrainingOptions().settle())
