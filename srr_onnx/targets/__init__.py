"""VALIDATE: where models run; the only home of runtimes."""

import os

# From 1.29 on onnxruntime writes an identifier of the machine into the cache folder and reports what it runs to its
# makers, unless this is there before it starts. What the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
