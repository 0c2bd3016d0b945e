import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.finetuning.losses import distillation_loss, label_loss, number_loss, take_kept  # noqa: E402


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("shape", "axis"), [((5, 7), 1), ((2, 3, 4, 4), 1), ((2, 6, 9), 2)])
def test_a_student_like_its_teacher_loses_nothing(shape, axis, temperature):
    teacher = draw(*shape)
    student = teacher.clone().requires_grad_()
    loss = distillation_loss(student, teacher, axis, temperature)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert student.grad.abs().max() < 1e-6
    assert number_loss(teacher, teacher).item() == 0


def test_logits_that_differ_by_a_constant_are_the_same_classes():
    teacher = draw(5, 7)
    assert abs(distillation_loss(teacher + 3, teacher, 1, 2.0).item()) < 1e-6
    assert number_loss(teacher + 3, teacher).item() > 1


def test_distillation_is_the_divergence_at_temperature_one():
    student, teacher = draw(4, 5), draw(4, 5, seed=1)
    wanted = torch.softmax(teacher, 1)
    expected = (wanted * (wanted.log() - torch.log_softmax(student, 1))).sum(1).mean()
    assert distillation_loss(student, teacher, 1, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected > 0.1


def test_number_loss_does_not_depend_on_the_unit():
    student, teacher = draw(4, 5), draw(4, 5, seed=1)
    small, large = number_loss(student, teacher), number_loss(student * 1000, teacher * 1000)
    assert small.item() == pytest.approx(large.item(), rel=1e-5)
    mean = teacher.mean().expand_as(teacher)
    assert number_loss(mean, teacher).item() == pytest.approx(1.0, rel=1e-5)


def test_label_loss_takes_classes_and_shares_alike():
    logits, labels = draw(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    rows = torch.nn.functional.one_hot(labels, 4).float()
    plain = label_loss(logits, labels).item()
    assert plain == pytest.approx(label_loss(logits, rows).item(), rel=1e-6)
    assert plain == pytest.approx(label_loss(logits.reshape(6, 4, 1, 1), labels).item(), rel=1e-6)
    smooth = label_loss(logits, labels, 0.1).item()
    uniform = -torch.log_softmax(logits, 1).mean().item()
    assert smooth == pytest.approx(0.9 * plain + 0.1 * uniform, rel=1e-5)


def test_kept_channels_are_compared():
    value = draw(2, 5, 3)
    kept = take_kept(value, {1: torch.tensor([0, 3]), 2: torch.tensor([1])})
    assert torch.equal(kept, value[:, [0, 3]][:, :, [1]])
