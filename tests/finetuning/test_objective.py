import numpy as np
import onnx
import pytest
from builders import Graph
from training_models import CLASSES, net, pictures, save_net

torch = pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.data.read import open_data  # noqa: E402
from srr_onnx.errors import DataError, TrainingError, UnknownNameError  # noqa: E402
from srr_onnx.finetuning.bridge import to_torch  # noqa: E402
from srr_onnx.finetuning.objective import find_logits, make_objective  # noqa: E402
from srr_onnx.finetuning.options import TrainingOptions  # noqa: E402
from srr_onnx.graph.load import load_model  # noqa: E402

OPTIONS = TrainingOptions()


def load(proto, tmp_path, name="net.onnx"):
    onnx.save(proto, tmp_path / name)
    return load_model(tmp_path / name)


def make(model, teacher=None, labelled=True, **settings):
    x, labels = pictures(16)
    batches = [(x, labels)] if labelled else [x]
    named = {key: settings.pop(key) for key in ("heads", "features", "kept") if key in settings}
    return make_objective(model, teacher, open_data(batches, model), TrainingOptions(**settings), **named)


def measure(objective, model, teacher, labels=None):
    values = [torch.from_numpy(pictures(16)[0]).float() / 255]
    student = to_torch(model).eval().run(values, objective.student_values)
    other = to_torch(teacher).eval().run(values, objective.teacher_values)
    return objective.measure(student, other, labels).item()


@pytest.mark.parametrize("softmax", [False, True])
def test_a_model_that_is_its_own_teacher_has_no_loss(tmp_path, softmax):
    model = load(net(softmax=softmax), tmp_path)
    objective = make(model, model, labelled=False, features={"Relu_0": "Relu_0"})
    assert abs(measure(objective, model, model)) < 1e-6
    other = load(net(softmax=softmax, seed=1), tmp_path, "other.onnx")
    assert measure(objective, other, model) > 0.01


def test_labels_are_compared_with_what_the_softmax_reads(tmp_path):
    plain, shares = load(net(), tmp_path), load(net(softmax=True), tmp_path, "shares.onnx")
    labels = torch.from_numpy(pictures(16)[1])
    losses = [measure(make(model, loss="labels"), model, model, labels) for model in (plain, shares)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("opset", "axis", "shape", "expected"),
    [
        (11, 1, (1, 5), ("x", 1)),
        (11, None, (1, 5), ("x", 1)),
        (13, None, (1, 5), ("x", 1)),
        (13, 2, (1, 4, 5), ("x", 2)),
        (13, 1, (1, 5, 3, 3), ("x", 1)),
        (11, 1, (1, 5, 3, 3), ("out", None)),
        (11, 3, (1, 2, 3, 5), ("x", 3)),
    ],
)
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_logits_are_found_behind_a_softmax(tmp_path, opset, axis, shape, expected, kind):
    g = Graph(opset=opset)
    x = g.input("x", shape)
    made = g(kind, x, **({} if axis is None else {"axis": axis}))
    g.output(g("Identity", made, outputs=["out"]))
    assert find_logits(load(g.model(), tmp_path), "out") == expected


@pytest.mark.parametrize(("operator", "shape"), [("Sigmoid", (1, 5)), ("Relu", (1, 5, 4, 4)), ("Relu", (1, 1))])
def test_what_is_no_score_of_classes_is_compared_as_numbers(tmp_path, operator, shape):
    g = Graph()
    g.output(g(operator, g.input("x", shape), outputs=["out"]))
    assert find_logits(load(g.model(), tmp_path), "out") == ("out", None)


@pytest.mark.parametrize(
    ("labelled", "loss", "has_logits", "weights"),
    [
        (True, "auto", True, (0.5, [0.5])),
        (False, "auto", False, (0.5, [1.0])),
        (True, "labels", True, (1.0, [])),
        (True, "distillation", False, (0.5, [1.0])),
        (True, "both", True, (0.5, [0.5])),
    ],
)
def test_what_is_trained_on(tmp_path, labelled, loss, has_logits, weights):
    model = load(net(), tmp_path)
    objective = make(model, model, labelled, loss=loss)
    assert (objective.logits == "head") is has_logits
    assert [term.weight for term in objective.terms] == weights[1]
    if has_logits:
        assert objective.label_weight == weights[0]


def test_without_labels_and_teacher_there_is_nothing_to_train_on(tmp_path):
    model = load(net(), tmp_path)
    with pytest.raises(TrainingError, match=r"there is nothing to train on: .* has no labels and there is no teacher"):
        make(model, labelled=False)
    with pytest.raises(TrainingError, match="loss distillation needs a teacher: give --teacher"):
        make(model, loss="distillation")
    with pytest.raises(DataError, match="has no labels"):
        make(model, model, labelled=False, loss="both")
    with pytest.raises(TrainingError, match="compared with a teacher's: give --loss both, or leave them out"):
        make(model, model, loss="labels", features={"Relu_0": "Relu_0"})
    with pytest.raises(TrainingError, match="heads and features are compared with a teacher's"):
        make(model, features={"Relu_0": "Relu_0"})


def test_features_of_other_size_need_the_channels_that_were_kept(tmp_path):
    teacher = load(net(channels=8), tmp_path)
    student = load(net(channels=5), tmp_path, "student.onnx")
    pairs = {"Relu_0": "Relu_0"}
    message = "'Relu_0' has 5x8x8 per sample, the teacher's 'Relu_0' 8x8x8: the plan .* give --plan FILE"
    with pytest.raises(TrainingError, match=message):
        make(student, teacher, labelled=False, features=pairs)
    keep = np.array([0, 2, 3, 6, 7])
    objective = make(student, teacher, labelled=False, features=pairs, kept={("Relu_0", 1): keep})
    assert objective.terms[-1].kept[1].tolist() == keep.tolist()
    assert measure(objective, student, teacher) > 0
    with pytest.raises(TrainingError, match=r"the teacher's 'Relu_0' 3x8x8$"):
        make(student, teacher, labelled=False, features=pairs, kept={("Relu_0", 1): keep[:3]})


def test_names_that_nothing_has(tmp_path):
    model = load(net(), tmp_path)
    with pytest.raises(UnknownNameError, match="unknown value of the model 'Relu_O': did you mean 'Relu_"):
        make(model, model, features={"Relu_O": "Relu_0"})
    with pytest.raises(UnknownNameError, match="unknown value of the teacher 'haed': did you mean 'head'"):
        make(model, model, heads={"head": "haed"})


def test_heads_take_the_place_of_the_outputs(tmp_path):
    model = load(net(), tmp_path)
    objective = make(
        model, model, labelled=False, heads={"Relu_1": "Relu_1", "GlobalAveragePool_0": "GlobalAveragePool_0"}
    )
    assert [(term.student, term.weight) for term in objective.terms] == [("Relu_1", 0.5), ("GlobalAveragePool_0", 0.5)]


def test_outputs_without_floating_point_numbers_need_heads(tmp_path):
    proto = net()
    g = proto.graph
    g.node.append(onnx.helper.make_node("ArgMax", ["head"], ["class"], axis=1))
    del g.output[:]
    g.output.append(onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, None))
    model = load(proto, tmp_path)
    with pytest.raises(TrainingError, match=r"no output holds floating-point numbers.*--head"):
        make(model, model, labelled=False)
    assert make(model, model, labelled=False, heads={"head": "head"}).terms[0].axis == 1


def test_labels_that_are_no_class_of_the_model(tmp_path):
    model = load_model(save_net(tmp_path / "net.onnx"))
    x, labels = pictures(16)
    dataset = open_data([(x, labels + CLASSES)], model)
    with pytest.raises(DataError, match="labels from 4 to 7, but 'head' has 4 classes"):
        make_objective(model, None, dataset, OPTIONS)


def test_labels_that_no_output_has_classes_for_are_said_to_teach_nothing(tmp_path):
    g = Graph()
    g.output(g.conv(g.input("image", (1, 3, 8, 8), dynamic={0: "batch"}), 4, 3, name="map"))
    model = load(g.model(), tmp_path)
    found = make(model, model)
    assert found.logits is None
    assert [note.partition(",")[0] for note in found.notes] == [
        "no accuracy: accuracy needs an output with one row per sample and one column per class"
    ]
    assert make(model, model, loss="distillation").notes == ()


def test_which_of_several_outputs_labels_are_compared_with_is_said(tmp_path):
    proto = net()
    proto.graph.output.append(onnx.helper.make_tensor_value_info("Relu_1", onnx.TensorProto.FLOAT, None))
    assert make(load(proto, tmp_path)).notes == ("labels are compared with the output 'head'",)
    assert make(load(net(), tmp_path, "single.onnx")).notes == ()
