"""Does a pruned file drop into whatever runs the original? One module per runtime, and the process that runs it.

`runtimes.py` lists the runtimes; `check.py` runs each in processes of its own (`worker.py`, `web.mjs`) and says what
came of it; `table.py` writes that down; `quantize.py` makes the quantised copy.
"""
