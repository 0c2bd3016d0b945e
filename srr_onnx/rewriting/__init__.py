"""REWRITE: slicing, repairs, replay, proof."""
