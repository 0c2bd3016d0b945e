"""SCORE: how much each unit of a group matters, and how redundant each group is."""
