"""FINE-TUNE: which values of student and teacher are compared, and how.

Reads both graphs; makes an `Objective`, which turns values by name into one number. Where an output is a softmax, what
it reads is compared: logits say more than the shares that are left of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.errors import TrainingError, UnknownNameError
from srr_onnx.finetuning.losses import distillation_loss, label_loss, number_loss, take_kept
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.graph.model import Model, is_floating
from srr_onnx.validation.class_names import find_classes
from srr_onnx.validation.classes import find_class_axis

# Operators that hand their input on as it is, on the way from a softmax to an output.
_PASSING = frozenset({"Identity", "Cast", "Dropout"})
_SHARES = frozenset({"Softmax", "LogSoftmax"})
_NO_CLASSES = frozenset({"Sigmoid", "Tanh", "HardSigmoid", "Clip"})

Values = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """A value of the student that is to be as the teacher's.

    Attributes:
        student: Name of the student's value.
        teacher: Name of the teacher's.
        axis: Axis of the classes; None where the numbers themselves are compared.
        weight: In the sum.
        kept: Positions of the teacher's channels that the student has, by axis.
    """

    student: str
    teacher: str
    axis: int | None
    weight: float = 1.0
    kept: Mapping[int, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What training makes small.

    Attributes:
        terms: What is compared with the teacher.
        logits: The student's value that labels are compared with; None without labels.
        label_weight: Weight of the labels.
        options: Temperature and smoothing.
        notes: What the user should know.
    """

    terms: tuple[Term, ...]
    logits: str | None
    label_weight: float
    options: TrainingOptions
    notes: tuple[str, ...] = ()

    @property
    def student_values(self) -> list[str]:
        """Values that the student is asked for."""
        labelled = () if self.logits is None else (self.logits,)
        return list(dict.fromkeys([*labelled, *(term.student for term in self.terms)]))

    @property
    def teacher_values(self) -> list[str]:
        """Values that the teacher is asked for."""
        return list(dict.fromkeys(term.teacher for term in self.terms))

    def measure(self, student: Values, teacher: Values, labels: Tensor | None) -> Tensor:
        """Put everything that is compared into one number.

        Args:
            student: The student's values by name.
            teacher: The teacher's.
            labels: Class per sample, or shares of the classes.

        Returns:
            The loss.
        """
        parts: list[Tensor] = []
        if self.logits is not None:
            assert labels is not None, "there is an output for labels only where there are labels"
            found = label_loss(student[self.logits], labels, self.options.label_smoothing)
            parts.append(self.label_weight * found)
        for term in self.terms:
            given, wanted = student[term.student], take_kept(teacher[term.teacher], term.kept)
            if term.axis is None:
                found = number_loss(given, wanted)
            else:
                found = distillation_loss(given, wanted, term.axis, self.options.temperature)
            parts.append(term.weight * found)
        return torch.stack(parts).sum()


def make_objective(
    student: Model,
    teacher: Model | None,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    heads: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    kept: Mapping[tuple[str, int], Array] | None = None,
) -> Objective:
    """Decide what is compared.

    Args:
        student: The model that is trained.
        teacher: The model that it is to be like.
        dataset: The samples; their labels count where the loss wants them.
        options: Which loss.
        heads: Values that are compared in place of the outputs: the student's name, the teacher's name.
        features: Values whose numbers are compared besides.
        kept: Positions that remained when the student was pruned, by the teacher's value and axis.

    Returns:
        The objective.

    Raises:
        TrainingError: There is nothing to train on, or two values differ in size.
        UnknownNameError: There is no value of a name.
        DataError: Labels do not fit the model.
    """
    wants = options.loss
    if wants in ("distillation", "both") and teacher is None:
        raise TrainingError(f"loss {wants} needs a teacher: give --teacher MODEL.onnx, the model before pruning")
    classes = find_classes(student, dataset, None, is_needed=wants in ("labels", "both"))
    has_labels = classes.output is not None and wants != "distillation"
    has_teacher = teacher is not None and wants != "labels"
    if not has_labels and not has_teacher:
        raise TrainingError(
            f"there is nothing to train on: {dataset.name!r} has no labels and there is no teacher; give --teacher "
            "MODEL.onnx, the model before pruning, or --labels FILE"
        )
    terms: list[Term] = []
    if teacher is not None and has_teacher:
        share = options.distillation if has_labels else 1.0
        terms = _find_heads(student, teacher, heads or {}, share)
        for ours, theirs in (features or {}).items():
            _check_names(student, teacher, ours, theirs)
            terms.append(_fit(Term(ours, theirs, None, options.feature_weight), student, teacher, kept or {}))
    elif heads or features:
        way = "give --teacher MODEL.onnx" if teacher is None else "give --loss both, or leave them out"
        raise TrainingError(f"heads and features are compared with a teacher's: {way}")
    logits = None if not has_labels or classes.output is None else find_logits(student, classes.output)[0]
    weight = 1 - options.distillation if has_teacher else 1.0
    notes = [classes.note] if wants != "distillation" and classes.note else []
    notes += [f"labels are compared with the output {classes.output!r}"] if logits and len(student.outputs) > 1 else []
    return Objective(tuple(terms), logits, weight, options, tuple(notes))


def find_logits(model: Model, output: str) -> tuple[str, int | None]:
    """Find the numbers behind a score per class.

    Args:
        model: The model.
        output: A value of it.

    Returns:
        What the softmax reads that makes the value, if one does, else the value itself; and the axis of the classes,
        None where the value is no score of classes.
    """
    shape, name = model.shapes.get(output, ()), output
    while (node := model.producers.get(name)) is not None and node.op_type in _PASSING and not node.domain:
        name = node.inputs[0]
    if node is not None and not node.domain and node.op_type in _SHARES:
        axis = int(node.attributes.get("axis", -1 if node.since_version >= 13 else 1)) % max(1, len(shape))
        # before version 13 the softmax goes over this and all later axes together
        if node.since_version >= 13 or all(size == 1 for size in shape[axis + 1 :]):
            return node.inputs[0], axis
        return output, None
    is_row = sum(size > 1 for size in shape[1:]) == 1
    if not is_row or (node is not None and node.op_type in _NO_CLASSES):
        return output, None
    return output, find_class_axis(model, output)


def _find_heads(student: Model, teacher: Model, heads: Mapping[str, str], share: float) -> list[Term]:
    for ours, theirs in heads.items():
        _check_names(student, teacher, ours, theirs)
    named = heads or {name: name for name in student.outputs if _is_float(student, name)}
    if not named:
        raise TrainingError(
            "no output holds floating-point numbers, so no gradient reaches the weights: name the last values that do "
            "with --head"
        )
    terms = []
    for ours, theirs in named.items():
        (value, axis), (wanted, _) = find_logits(student, ours), find_logits(teacher, theirs)
        terms.append(_fit(Term(value, wanted, axis, share / len(named)), student, teacher, {}))
    return terms


def _is_float(model: Model, name: str) -> bool:
    dtype = model.dtypes.get(name)
    return dtype is None or is_floating(dtype)


def _check_names(student: Model, teacher: Model, ours: str, theirs: str) -> None:
    for kind, model, name in (("value of the model", student, ours), ("value of the teacher", teacher, theirs)):
        if name not in model.producers:
            raise UnknownNameError(kind, name, model.producers)


def _fit(term: Term, student: Model, teacher: Model, kept: Mapping[tuple[str, int], Sequence[int] | Array]) -> Term:
    """Enter the positions of the teacher's channels, and check that both values then have one size."""
    ours, theirs = student.shapes.get(term.student), teacher.shapes.get(term.teacher)
    if ours is None or theirs is None or ours[1:] == theirs[1:]:
        return term
    positions = {axis: keep for (name, axis), keep in kept.items() if name == term.teacher}
    left = tuple(len(positions[axis]) if axis in positions else size for axis, size in enumerate(theirs))
    if left[1:] != ours[1:]:
        hint = "" if kept else ": the plan of the pruning tells which channels are the same, give --plan FILE"
        raise TrainingError(
            f"{term.student!r} has {_write(ours)} per sample, the teacher's {term.teacher!r} {_write(left)}{hint}"
        )
    return dataclasses.replace(term, kept={axis: torch.as_tensor(keep) for axis, keep in positions.items()})


def _write(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:])) or "a single number"
