"""FINE-TUNE: the graph of the file, trained in torch; the only home of torch."""
