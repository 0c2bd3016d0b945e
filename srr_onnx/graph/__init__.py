"""LOAD: files, models, shapes, costs, edits."""
