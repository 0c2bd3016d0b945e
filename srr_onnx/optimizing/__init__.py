"""OPTIMIZE: all stages by one recipe, each one's result a file, from which a run that was stopped goes on."""
