"""FINE-TUNE: the operators that torch computes here, one function per meaning; importing the package registers them."""
