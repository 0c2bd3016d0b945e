"""A whole training in this process: what it makes, and that it goes on from anywhere as if nothing had been."""

import csv
import json
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
from builders import Graph
from onnx import numpy_helper
from training_models import net, pictures, save_net, save_pictures

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from srr_onnx.errors import DataError, OutputError, TrainingError  # noqa: E402
from srr_onnx.finetuning import finetune as module  # noqa: E402
from srr_onnx.finetuning.options import TrainingOptions  # noqa: E402
from srr_onnx.graph.load import load_model  # noqa: E402
from srr_onnx.graph.save import save_model  # noqa: E402

# Six batches an epoch, twelve in all.
FAST = {"optimizer": "adamw", "lr": 0.02}
QUICK = {"epochs": 2, "batch": 14, "checkpoint_every": 1, "lr": 0.05}


@pytest.fixture
def files(tmp_path):
    torch.set_num_threads(1)  # for nets as small as these more only wait for each other
    save_net(tmp_path / "net.onnx")
    save_net(tmp_path / "teacher.onnx", seed=1)
    save_pictures(tmp_path / "data.npz")
    return tmp_path


def train(files, name="out", **changes):
    call = {"teacher": files / "teacher.onnx", "data": files / "data.npz", "force": False, "resume": False}
    call |= {key: changes.pop(key) for key in list(changes) if key in (*call, "heads", "features", "on_stage", "plan")}
    source = changes.pop("source", files / "net.onnx")
    options = TrainingOptions(**{**QUICK, **changes})
    return module.fine_tune(source, files / f"{name}.onnx", options=options, run_dir=files / name, **call)


def weights(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def same(first, second):
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_training_makes_a_better_file_of_the_same_graph(files):
    found = train(files, epochs=8, teacher=None, **FAST)
    before, after = onnx.load(files / "net.onnx"), onnx.load(files / "out.onnx")
    assert found.after.figure > max(0.5, found.before.figure + 0.2)
    assert found.after.accuracy.samples == found.judged_on == 10
    assert found.trained_on == 86
    assert [node.SerializeToString() for node in before.graph.node] == [
        node.SerializeToString() for node in after.graph.node
    ]
    assert not same(files / "net.onnx", files / "out.onnx")
    with open(files / "out" / "epochs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(number) for number in range(1, 9)]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    best = max(rows, key=lambda row: float(row["figure"]))
    assert found.best.epoch == int(best["epoch"])
    assert found.after.figure == float(best["figure"])
    assert list((files / "out" / "tensorboard").iterdir())


def test_what_lies_beside_the_file_does_so_in_the_trained_one(files):
    proto = onnx.load(files / "net.onnx")
    onnx.save(proto, files / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=200)
    beside = load_model(files / "net.onnx").external
    assert 0 < len(beside) < len(proto.graph.initializer)
    found = train(files, recalibrate=1)
    assert found.model.external == load_model(files / "out.onnx").external == beside
    assert sorted(path.name for path in files.glob("out.onnx*")) == ["out.onnx", "out.onnx.data"]
    assert [path.name for path in (files / "out").glob("best*")] == ["best.onnx"]
    assert same(files / "out.onnx", files / "out" / "best.onnx")


def test_a_student_becomes_like_its_teacher_without_labels(files):
    save_pictures(files / "data.npz", labelled=False)
    found = train(files, epochs=8, **FAST)
    assert found.after.accuracy is None and found.teacher is None
    assert found.after.agreement.kl.mean < found.before.agreement.kl.mean / 3
    assert found.after.figure == -found.after.agreement.kl.mean


SETTINGS = {
    "plain": {},
    "accumulated": {"accumulate": 4},
    "averaged": {"ema": 0.9},
    "adamw": {"optimizer": "adamw", "clip": 1.0, "lr": 0.01},
    "mixed": {"mixup": 0.4, "label_smoothing": 0.1, "augment": ("flip", "crop", "randaugment")},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_is_stopped_anywhere_goes_on_as_if_it_had_not_been(files, name):
    """After every single batch, one time after the other in one run, and then to the end."""
    train(files, "whole", **SETTINGS[name])
    stopped = []

    def stop(stage, done, steps):
        if stage == "train" and done not in stopped:
            stopped.append(done)
            raise InterruptedError

    for number in range(13):
        try:
            train(files, "parts", resume=number > 0, on_stage=stop, **SETTINGS[name])
        except InterruptedError:
            continue
        break
    assert stopped == list(range(1, 13))
    assert same(files / "whole.onnx", files / "parts.onnx")
    assert (files / "whole" / "epochs.csv").read_text() == (files / "parts" / "epochs.csv").read_text()


def test_a_run_that_has_come_to_its_end_goes_on_to_the_same(files):
    train(files)
    text = (files / "out.onnx").read_bytes()
    (files / "out.onnx").unlink()

    def stop(stage, done, steps):
        if stage == "save":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(files, resume=True, on_stage=stop)
    assert not (files / "out.onnx").exists()
    train(files, resume=True)
    assert (files / "out.onnx").read_bytes() == text


def test_the_same_seed_trains_alike_and_another_one_does_not(files):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(files, name, seed=seed)
    assert same(files / "a.onnx", files / "b.onnx")
    assert not same(files / "a.onnx", files / "c.onnx")


def test_workers_change_nothing_of_the_result(files):
    train(files, "none")
    train(files, "two", workers=2)
    assert same(files / "none.onnx", files / "two.onnx")


@pytest.mark.parametrize("norms", ["insert", "keep"])
def test_a_folded_network_is_trained_with_and_without_normalizations(files, norms):
    train(files, norms=norms)
    train(files, "auto")
    assert same(files / "out.onnx", files / "auto.onnx") is (norms == "insert")
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(files / "out.onnx").graph.node}


def test_statistics_of_normalizations_are_trained_too(files):
    save_net(files / "net.onnx", norms=True)
    train(files)
    before, after = weights(files / "net.onnx"), weights(files / "out.onnx")
    assert not np.array_equal(before["first.mean"], after["first.mean"])
    train(files, "frozen", frozen=0.99)
    still = weights(files / "frozen.onnx")
    assert not np.array_equal(after["first.mean"], still["first.mean"])


def test_patience_ends_training(files):
    found = train(files, epochs=30, lr=1e-9, patience=2)
    assert len(found.rows) < 30
    assert found.rows[-1].epoch - found.best.epoch == 2
    again = train(files, epochs=30, lr=1e-9, patience=2, resume=True, force=True)
    assert again.rows == found.rows


def test_features_of_a_pruned_network_are_compared_with_the_channels_that_were_kept(files):
    import srr_onnx

    pruned = srr_onnx.prune(files / "teacher.onnx", files / "net.onnx", ratio=0.5, force=True, compensate="none")
    found = train(files, features={"Relu_0": "Relu_0"}, plan=pruned.plan, epochs=4)
    assert found.after.figure >= found.before.figure
    with pytest.raises(TrainingError, match="give --plan FILE"):
        train(files, "other", features={"Relu_0": "Relu_0"})


def test_a_run_goes_on_only_with_what_it_was_started_with(files):
    train(files)
    with pytest.raises(TrainingError, match=r"cannot go on: epochs was 2 and is 3 now; give what it was started with"):
        train(files, epochs=3, resume=True, force=True)
    with pytest.raises(TrainingError, match="cannot go on: the teacher is another file"):
        train(files, teacher=files / "net.onnx", resume=True, force=True)
    save_pictures(files / "data.npz", seed=5)
    with pytest.raises(TrainingError, match="cannot go on: the data are others"):
        train(files, resume=True, force=True)
    with pytest.raises(TrainingError, match="holds no run to go on with: leave --resume out"):
        train(files, "none", resume=True)


def test_a_run_is_not_thrown_away_unasked(files):
    train(files)
    (files / "out" / "mine.txt").write_text("keep")
    (files / "out.onnx").unlink()
    with pytest.raises(TrainingError, match="holds a run already: give --resume to go on with it, --force"):
        train(files)
    train(files, force=True, epochs=1)
    assert json.loads((files / "out" / "settings.json").read_text())["epochs"] == 1
    assert (files / "out" / "mine.txt").read_text() == "keep"


def test_a_run_that_could_not_begin_is_in_nobody_s_way(files):
    def stop(stage, done, steps):
        if stage == "prepare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(files, on_stage=stop)
    assert (files / "out" / "settings.json").exists()
    train(files, epochs=1)


def test_settings_of_somebody_else_are_not_written_over(files):
    (files / "out").mkdir()
    for text in ("{}", "no JSON"):
        (files / "out" / "settings.json").write_text(text)
        with pytest.raises(TrainingError, match="holds a run already"):
            train(files)
        with pytest.raises(TrainingError, match="holds no run to go on with"):
            train(files, resume=True)
        assert (files / "out" / "settings.json").read_text() == text


# Locks a file, says so, and waits for a line.
LOCK = "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.{how}); print(); input()"


def test_nobody_works_on_a_run_that_another_process_works_on(files):
    train(files)
    (files / "out.onnx").unlink()
    command = [sys.executable, "-c", LOCK.format(how="LOCK_EX"), str(files / "out" / "settings.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for how in ("resume", "force"):
            with pytest.raises(TrainingError, match=r"another process is at work in .*: wait for its end"):
                train(files, **{how: True})
        other.communicate(b"\n")
    train(files, resume=True)


def test_other_processes_are_kept_out_until_the_end(files):
    command = [sys.executable, "-c", LOCK.format(how="LOCK_EX | fcntl.LOCK_NB"), str(files / "out" / "settings.json")]
    found = []

    def ask():
        result = subprocess.run(command, input=b"\n", capture_output=True, check=False)
        return b"BlockingIOError" in result.stderr or result.returncode

    def stop(stage, done, steps):
        if stage == "train" and done == 1:
            found.append(ask())
            raise InterruptedError

    def look(stage, done, steps):
        if stage == "train" and done == steps:
            found.append(ask())

    with pytest.raises(InterruptedError):
        train(files, on_stage=stop)
    train(files, on_stage=look, resume=True)
    assert [*found, ask()] == [True, True, 0]


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(files):
    def stop(stage, done, steps):
        if stage == "train" and done == 3:
            raise InterruptedError

    changes = {"lr": 1e20, "warmup": 0.0, "norms": "keep"}
    with pytest.raises(TrainingError) as caught:
        train(files, epochs=3, **changes)
    message = str(caught.value)
    assert "is no number any more after" in message
    assert message.endswith("try one of: a smaller --lr (it was 1e+20), --norms insert, --clip 1")
    assert not (files / "out.onnx").exists()


def test_a_checkpoint_that_is_kept_is_a_good_one(files, monkeypatch):
    """Samples go bad in the middle: what was saved before is finite, and is said to be there."""
    from srr_onnx.finetuning.training import Training

    forward, calls = Training.forward, []

    def fail_late(self, batch):
        calls.append(1)
        return forward(self, batch) * (float("nan") if len(calls) > 8 else 1)

    monkeypatch.setattr(Training, "forward", fail_late)
    with pytest.raises(TrainingError, match=r"after \d+ of 12 batches: the last good checkpoint is kept in '.*out'"):
        train(files)
    state = torch.load(files / "out" / "last.ckpt", weights_only=False)["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.mark.parametrize("is_short", [True, False])
def test_a_damaged_checkpoint_is_no_place_to_go_on_from(files, is_short):
    train(files)
    last = files / "out" / "last.ckpt"
    content = last.read_bytes()
    with zipfile.ZipFile(last) as file:
        place = max(file.infolist(), key=lambda entry: entry.file_size).header_offset + 256
    spoilt = bytes(byte ^ 255 for byte in content[place : place + 16])
    last.write_bytes(content[:1000] if is_short else content[:place] + spoilt + content[place + 16 :])
    with pytest.raises(TrainingError, match=r"'.*last\.ckpt' is damaged: start anew with --force"):
        train(files, resume=True, force=True)


def test_training_in_half_precision_writes_the_type_of_the_file(files):
    found = train(files, precision="bf16", epochs=8, **FAST)
    assert found.after.figure > found.before.figure
    assert {array.dtype for array in weights(files / "out.onnx").values()} == {np.dtype(np.float32)}


def test_without_a_folder_the_run_lies_beside_the_output(files):
    found = module.fine_tune(
        files / "net.onnx", files / "new.onnx", data=files / "data.npz", options=TrainingOptions(epochs=1)
    )
    assert found.folder == files / "new.run"
    with pytest.raises(TrainingError, match="there is no place for checkpoints"):
        module.fine_tune(files / "net.onnx", data=files / "data.npz")


def test_ctrl_c_is_one(files):
    def stop(stage, done, steps):
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(files, on_stage=stop)
    train(files, resume=True)
    train(files, "whole")
    assert same(files / "out.onnx", files / "whole.onnx")


# Data and files that will not do


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.zeros(96, np.int64)}, DataError, "all 96 samples of 'data.npz' have the label 0"),
        ({"labels": np.full(96, 9)}, DataError, "labels from 9 to 9, but 'head' has 4 classes"),
        ({"image": np.zeros((96, 3, 4, 4), np.float32)}, DataError, r"samples of shape \[3, 4, 4\]"),
        ({"image": np.zeros((1, 3, 8, 8), np.uint8), "labels": np.zeros(1, int)}, DataError, "holds a single sample"),
    ],
    ids=["one class", "out of range", "wrong size", "single"],
)
def test_bad_data(files, change, error, message):
    x, labels = pictures()
    np.savez(files / "data.npz", **{"image": x, "labels": labels, **change})
    with pytest.raises(error, match=message):
        train(files)
    assert not (files / "out").exists() and not (files / "out.onnx").exists()


def test_a_teacher_with_other_outputs(files):
    proto = net(seed=1)
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "scores"
    onnx.save(proto, files / "teacher.onnx")
    with pytest.raises(DataError, match=r"their outputs differ: the reference has 'scores' .*, the candidate 'head'"):
        train(files)


def test_neither_labels_nor_a_teacher(files):
    save_pictures(files / "data.npz", labelled=False)
    with pytest.raises(TrainingError, match=r"'data.npz' has no labels and there is no teacher; give --teacher"):
        train(files, teacher=None)


def test_a_single_number_per_sample_is_judged_by_its_difference(files):
    for name, seed in (("net", 0), ("teacher", 1)):
        g = Graph(seed=seed)
        x = g("Relu", g.conv(g.input("image", (1, 3, 8, 8), dynamic={0: "batch"}), 8, 3, name="first"))
        g.output(g.conv(g("GlobalAveragePool", x), 1, 1, name="last"))
        onnx.save(g.model(), files / f"{name}.onnx")
    save_pictures(files / "data.npz", labelled=False)
    found = train(files, norms="keep", lr=0.001, clip=1.0)
    assert found.before.figure == -found.before.agreement.max_abs
    assert len({row.figure for row in found.rows}) == 2


def test_made_up_pictures_teach_nothing(files):
    with pytest.raises(TrainingError, match="made-up pictures teach nothing about real ones"):
        train(files, data="synthetic")


def test_the_output_is_no_file_that_is_read(files):
    with pytest.raises(OutputError, match="is a file that is read: choose another name"):
        train(files, "teacher", force=True)


def test_a_run_writes_over_no_file_that_is_read(files):
    (files / "out").mkdir()
    source = save_net(files / "out" / "best.onnx")
    before = source.read_bytes()
    for force in (False, True):
        with pytest.raises(OutputError, match="is a file that is read: choose another folder with --run-dir"):
            train(files, source=source, force=force)
    with pytest.raises(TrainingError, match="holds a run already"):  # some model of the user's
        train(files)
    assert source.read_bytes() == before


@pytest.mark.parametrize("output", ["out", "out/best.onnx", "out/tensorboard"])
def test_the_result_is_no_place_of_the_run_s_own(files, output):
    with pytest.raises(OutputError, match="is a place of the run's own"):
        module.fine_tune(files / "net.onnx", files / output, data=files / "data.npz", run_dir=files / "out")


def test_a_teacher_with_its_inputs_in_another_order(files):
    def save(path, order):
        g = Graph(opset=13)
        for name in order:
            g.input(name, (1, 6), dynamic={0: "n"})
        first, second = g("MatMul", "a", g.weight(6, 4, name="u")), g("MatMul", "b", g.weight(6, 4, name="v"))
        g.output(g("Sub", g("Relu", first), g("Mul", second, second), name="y"))
        onnx.save(g.model(), path)

    save(files / "net.onnx", "ab")
    save(files / "teacher.onnx", "ba")
    rng = np.random.default_rng(0)
    np.savez(files / "data.npz", **{name: rng.standard_normal((40, 6)).astype(np.float32) for name in "ab"})
    found = train(files, lr=1e-6)
    assert max(row.loss for row in found.rows) < 1e-6


@pytest.mark.parametrize("norms", ["keep", "insert"])
def test_samples_of_the_half_precision_that_the_file_takes(files, norms):
    for name in ("net", "teacher"):
        model = onnx.load(files / f"{name}.onnx")
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        onnx.save(model, files / f"{name}.onnx")
    found = train(files, norms=norms, ema=0.5, mixup=0.2)
    assert {array.dtype for array in weights(files / "out.onnx").values()} == {np.dtype(np.float16)}
    assert found.rows[-1].loss < 10


def test_mixing_leaves_labels_alone_that_nothing_is_trained_on(files):
    assert train(files, loss="distillation", mixup=0.4).after.figure >= 0


def test_machines_that_nobody_has_started(files, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(TrainingError, match="nothing tells where the other machines are: start the command on each"):
        train(files, nodes=2)
    assert not (files / "out").exists()


def test_a_file_that_gives_no_numbers_to_judge_by(files):
    for name in ("net", "teacher"):
        proto = onnx.load(files / f"{name}.onnx")
        proto.graph.node.append(onnx.helper.make_node("ArgMax", ["head"], ["best"], axis=1))
        del proto.graph.output[:]
        proto.graph.output.append(onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, None))
        onnx.save(proto, files / f"{name}.onnx")
    save_pictures(files / "data.npz", labelled=False)
    with pytest.raises(TrainingError, match="so no epoch can be judged: make the values before them outputs too"):
        train(files, heads={"head": "head"})
    assert not (files / "out").exists()


def test_a_graph_in_which_nothing_learns(files):
    with pytest.raises(TrainingError, match="no gradient reaches a weight"):
        train(files, loss="distillation", heads={"image_copy": "image_copy"}, source=_with_copy(files))


def _with_copy(files):
    proto = net(seed=1)
    proto.graph.node.insert(0, onnx.helper.make_node("Relu", ["image"], ["image_copy"]))
    onnx.save(proto, files / "teacher.onnx")
    return files / "teacher.onnx"


def test_what_is_not_reached_stays_as_it_is_and_is_said(files):
    found = train(files, loss="distillation", heads={"Relu_0": "Relu_0"}, norms="keep")
    before, after = weights(files / "net.onnx"), weights(files / "out.onnx")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"first.weight", "first.bias"}
    assert any("not run, left as in the file" in note for note in found.notes)


@pytest.mark.parametrize("other", ["labels", "feature"])
def test_what_is_compared_behind_a_head_is_run_too(files, other):
    more = {"loss": "both"} if other == "labels" else {"loss": "distillation", "features": {"Relu_1": "Relu_1"}}
    found = train(files, heads={"Relu_0": "Relu_0"}, norms="keep", **more)
    before, after = weights(files / "net.onnx"), weights(files / "out.onnx")
    changed = {name.partition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"first", "second"} | ({"head"} if other == "labels" else set())
    assert any("left as in the file" in note for note in found.notes) is (other == "feature")


def test_a_model_in_memory_is_trained_too(files):
    model = load_model(files / "net.onnx")
    found = train(files, source=model)
    save_model(found.model, files / "again.onnx")
    assert same(files / "again.onnx", files / "out.onnx")


def test_statistics_are_taken_anew_only_if_that_helps(files, monkeypatch):
    save_net(files / "net.onnx", norms=True)
    train(files, "plain")
    judged = []
    measure = module.Judge.measure

    def listen(self, model, **options):
        judged.append(model)
        return measure(self, model, **options)

    monkeypatch.setattr(module.Judge, "measure", listen)
    found = train(files, recalibrate=3)
    # before, two epochs, taken anew, what was written, the teacher
    assert len(judged) == 6
    statistics = [model.constants["first.mean"] for model in judged[:4]]
    assert not np.array_equal(statistics[2], statistics[3])
    better = measure(module.Judge(found.model, None, _held_out(files)), judged[3]).figure > found.best.figure
    assert same(files / "plain.onnx", files / "out.onnx") is not better


def _held_out(files):
    from srr_onnx.data.read import open_data

    dataset = open_data(files / "data.npz", load_model(files / "net.onnx"))
    return module.split_samples(dataset, TrainingOptions(**QUICK))[1]
