"""CALIBRATE: what a model does on sample inputs, reduced to what scoring and compensation need."""
