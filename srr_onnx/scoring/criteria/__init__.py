"""SCORE: the built-in criteria, one module per family, and the table that holds them.

Importing this package registers them; `criteria` lists them together with those of modules that were imported before.
"""

from srr_onnx.scoring.criteria import bn_scale as bn_scale
from srr_onnx.scoring.criteria import geometric_median as geometric_median
from srr_onnx.scoring.criteria import magnitude as magnitude
from srr_onnx.scoring.criteria import random as random
from srr_onnx.scoring.criteria import reconstruction as reconstruction
from srr_onnx.scoring.criteria import srr as srr
from srr_onnx.scoring.criterion import criteria as criteria
