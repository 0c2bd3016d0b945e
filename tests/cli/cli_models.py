"""The network that the tests of the commands prune."""

from __future__ import annotations

from builders import Graph


def small_graph(**options):
    """Two convolutions of 16 filters, pooled into a classifier with 4 outputs; 43,840 MACs."""
    g = Graph(**options)
    x = g("Relu", g.conv(g.input("image", (1, 3, 4, 4), dynamic={0: "batch"}), 16, 3, name="first"))
    x = g("GlobalAveragePool", g("Relu", g.conv(x, 16, 3, name="second")))
    x = g("Flatten", x)
    g.output(g("Gemm", x, g.weight(4, 16, name="head.weight"), name="head", transB=1))
    return g
