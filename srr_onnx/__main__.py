"""`python -m srr_onnx`: the program, where its script is not on the path."""

from srr_onnx.cli.main import main

main()
