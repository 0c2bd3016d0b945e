"""REWRITE: what can go without any change of the outputs, found by following every channel through the graph."""
