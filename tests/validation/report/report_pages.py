"""What the tests of the report page show: a small network with names from an enemy, and every section filled."""

from __future__ import annotations

import numpy as np
from builders import Graph

import srr_onnx
from srr_onnx.planning.curve import Curve, Point
from srr_onnx.validation.report.build import list_figures
from srr_onnx.validation.report.data import Damage, ReportData, Reproduction
from srr_onnx.validation.report.structure import describe_structure

HOSTILE = '</title></script><script>alert("x")</script><img src=x onerror=alert(1)>'


def prune_hostile(tmp_path, **options):
    """Prune a chain of twelve convolutions, one of them with a hostile name."""
    g = Graph(17)
    x = g.input("x", (1, 3, 8, 8))
    for number in range(12):
        x = g("Relu", g.conv(x, 8 + 4 * (number % 3), 3, name=HOSTILE if number == 5 else f"/block.{number}/conv/Conv"))
    g.output(g.conv(x, 2, name="/head/Conv"))
    path = tmp_path / "net.onnx"
    path.write_bytes(g.model().SerializeToString())
    return srr_onnx.prune(path, **{"flops": 0.4, "compensate": "none", **options})


def make_data(result):
    """A page with every section, on a result of `prune_hostile`."""
    rng = np.random.default_rng(0)
    latency = {name: (base + rng.gamma(2, 0.05, 300)).tolist() for name, base in (("original", 1.0), ("pruned", 0.7))}
    structure = describe_structure(
        result.original,
        result.model,
        result.groups,
        result.plan,
        scores=result.scores,
        latency_ms={f"/block.{number}/conv/Conv": (0.2, 0.1) for number in range(12)},
    )
    reductions = np.linspace(0.05, 0.9, 18).tolist()
    points = tuple(Point(x, x**3, 2 * x**3, "g1", 0.5, x > 0.8) for x in reductions)
    figures = list_figures(result.plan.before, result.plan.after, None, {}, latency)
    return ReportData(
        title=HOSTILE,
        figures=figures,
        facts=(("proof", f"holds for {HOSTILE}"),),
        proof="Proven in onnxruntime",
        warnings=(f"look at {HOSTILE}",),
        structure=structure,
        latency=latency,
        damage=Damage(Curve("flops", points, 0.95, 0.8), 0.4),
        missing=("nothing",),
        reproduction=Reproduction(f"srr-onnx prune '{HOSTILE}'", (("seed", "0"),)),
    )


def summary_alone(data):
    """The same page with nothing but its summary."""
    return ReportData(title=data.title, figures=data.figures)
