"""DATA: samples to calibrate on, to measure accuracy with and to train on, read in batches as a model takes them."""
