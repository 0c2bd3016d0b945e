"""DATA: the built-in readers, one module per form, and the table that holds them.

Importing this package registers them; `readers` lists them together with those of modules that were imported before.
"""

from srr_onnx.data.reader import readers as readers
from srr_onnx.data.readers import array_files as array_files
from srr_onnx.data.readers import batches as batches
from srr_onnx.data.readers import cifar as cifar
from srr_onnx.data.readers import folder as folder
from srr_onnx.data.readers import synthetic as synthetic
from srr_onnx.data.readers import table as table
