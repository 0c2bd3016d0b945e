"""A provider that was asked for is the one that runs the model, or there is an error that says why not.

Real providers beside the CPU are tested where they are: OpenVINO by an interpreter of its own that the environment
variable SRR_ONNX_OPENVINO_PYTHON names (its onnxruntime-openvino takes the place of onnxruntime), CUDA and TensorRT by
an onnxruntime that has them. A fake shows what a session that falls back looks like.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from srr_onnx.errors import TargetError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets import providers
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.providers import Assignment, find_available
from srr_onnx.targets.target import PROVIDERS, Target
from tests.builders import Graph
from tests.documented import ROOT

OTHER_PYTHON = os.environ.get("SRR_ONNX_OPENVINO_PYTHON")
CUDA = PROVIDERS["cuda"]
Taken = namedtuple("Taken", "op_type")


def small_model(with_draw=False):
    g = Graph(opset=17)
    x = g("GlobalAveragePool", g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3)))
    x = g("Flatten", x)
    if with_draw:
        x = g("Multinomial", x, sample_size=2, seed=1.0, shape=(1, 2))
        g.dtypes[x] = TensorProto.INT32
    g.output(x)
    return g


def part(name, *kinds):
    return SimpleNamespace(ep_name=name, get_nodes=lambda: [Taken(kind) for kind in kinds])


@pytest.fixture
def fake(monkeypatch):
    """Pretend that there is a CUDA provider, whose session got these providers and spread the nodes so."""
    calls = []

    def install(got, parts, error=None):
        def open_session(data, options, **settings):
            calls.append(settings)
            if error:
                raise RuntimeError(error)
            return SimpleNamespace(
                get_providers=lambda: got, get_provider_graph_assignment_info=lambda: parts, get_inputs=list
            )

        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "set_default_logger_severity", lambda level: None)
        monkeypatch.setattr(ort, "InferenceSession", open_session)
        return calls

    return install


def open_cuda(**settings):
    return Session(load_model(small_model().model()), target=Target("cuda", **settings))


def test_a_provider_that_took_all_nodes_is_fine(fake):
    calls = fake([CUDA, "CPUExecutionProvider"], [part(CUDA, "Conv", "Relu")])
    session = open_cuda(options={"device_id": "1"})
    assert session.assignment == Assignment(CUDA, 2, {})
    assert session.assignment.describe() == ""
    assert calls[0]["providers"] == [(CUDA, {"device_id": "1"})]
    assert calls[0]["enable_fallback"] == 0


def test_a_silent_fall_back_to_the_cpu_is_an_error(fake):
    fake(["CPUExecutionProvider"], [part("CPUExecutionProvider", "Conv")])
    with pytest.raises(TargetError, match=r"cuda does not start here.*CPU instead"):
        open_cuda()


def test_a_provider_that_takes_no_node_is_an_error(fake):
    fake([CUDA, "CPUExecutionProvider"], [part("CPUExecutionProvider", "Conv", "Relu")])
    with pytest.raises(TargetError, match="cuda takes no node of the model, all 2 would run on the CPU"):
        open_cuda()


def test_nodes_that_stay_on_the_cpu_are_told(fake):
    fake([CUDA, "CPUExecutionProvider"], [part(CUDA, "Conv"), part("CPUExecutionProvider", "NonZero", "Loop", "Loop")])
    told = "3 of 4 nodes run on the CPU, cuda does not take them: Loop (2), NonZero (1)"
    assert open_cuda().assignment.describe() == told


def test_what_the_provider_refuses_is_told_without_the_runtimes_source(fake):
    fake([], [], error="/onnxruntime/pybind.cc:1053 std::shared_ptr<X> f(const Y&) Invalid option: bad")
    with pytest.raises(TargetError) as caught:
        open_cuda()
    assert str(caught.value) == "the provider cuda refuses the model: Invalid option: bad"


def test_a_provider_that_is_not_there_is_told_with_what_there_is():
    missing = "VitisAIExecutionProvider"
    with pytest.raises(TargetError, match=f"has no provider {missing} here, it has .*cpu: install a build"):
        Session(load_model(small_model().model()), target=Target(missing))


def test_a_plug_in_without_a_device_says_so(monkeypatch):
    monkeypatch.setattr(providers, "_register_plug_ins", lambda: frozenset({PROVIDERS["openvino"]}))
    monkeypatch.setattr(providers, "_find_devices", list)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(TargetError, match=r"openvino finds no device here \(onnxruntime-ep-openvino is installed"):
        Session(load_model(small_model().model()), target=Target("openvino"))


def test_openvino_is_told_the_number_of_threads_but_where_the_user_did():
    load = json.loads(providers._set_threads(Target("openvino", threads=3))["load_config"])
    assert load == {"CPU": {"INFERENCE_NUM_THREADS": "3"}}
    own = {"num_of_threads": "2"}
    assert providers._set_threads(Target("openvino", threads=3, options=own)) == own
    assert providers._set_threads(Target("openvino")) == {}


def test_the_cpu_is_always_there_and_comes_last():
    assert find_available()[-1] == PROVIDERS["cpu"]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_on_a_gpu_the_outputs_are_those_of_the_cpu(provider):
    if PROVIDERS[provider] not in find_available():
        pytest.skip(f"this onnxruntime has no provider {provider}")
    model = load_model(small_model().model())
    session = Session(model, target=Target(provider))
    assert session.assignment.taken
    feeds = make_feeds(model)
    (got,), (want,) = session.run(feeds).values(), Session(model).run(feeds).values()
    np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-3)  # TF32


SCRIPT = """
import json, sys
import numpy as np
from srr_onnx.errors import TargetError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.providers import find_available
from srr_onnx.targets.target import Target

def outcome(options):
    try:
        Session(model, target=Target("openvino", options=options))
    except TargetError as error:
        return str(error)

found = {"available": find_available()}
if "OpenVINOExecutionProvider" in found["available"]:
    model, drawing = map(load_model, sys.argv[1:])
    session, feeds = Session(model, target=Target("openvino", threads=1)), make_feeds(model)
    found["taken"] = session.assignment.taken
    found["error"] = max(
        float(np.abs(a - b).max()) for a, b in zip(session.run(feeds).values(), Session(model).run(feeds).values())
    )
    found["drawing"] = Session(drawing, target=Target("openvino")).assignment.describe()
    found["no device"], found["no option"] = outcome({"device_type": "GPU.7"}), outcome({"mistyped": "1"})
print(json.dumps(found))
"""


@pytest.mark.skipif(not OTHER_PYTHON, reason="SRR_ONNX_OPENVINO_PYTHON names no interpreter with onnxruntime-openvino")
def test_openvino_runs_the_model_and_says_what_it_does_not_take(tmp_path):
    for name, with_draw in (("net", False), ("drawing", True)):
        onnx.save(small_model(with_draw).model(), tmp_path / f"{name}.onnx")
    done = subprocess.run(
        [OTHER_PYTHON, "-c", SCRIPT, "net.onnx", "drawing.onnx"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    if PROVIDERS["openvino"] not in found["available"]:
        pytest.skip(f"{OTHER_PYTHON} has no OpenVINO provider that finds a device")
    assert found["taken"] == 4
    assert found["error"] < 1e-4
    assert found["drawing"] == "1 of 5 nodes run on the CPU, openvino does not take them: Multinomial (1)"
    assert "openvino does not start here" in found["no device"]
    assert "mistyped" in found["no option"]


def test_a_session_that_waits_leaves_the_cores_to_others():
    session = Session(load_model(small_model().model().SerializeToString()), target=Target(threads=2))
    options = session._session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
