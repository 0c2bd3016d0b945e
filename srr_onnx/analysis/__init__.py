"""ANALYZE: channel labels, operator rules, pruning groups."""
