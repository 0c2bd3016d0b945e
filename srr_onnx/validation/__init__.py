"""VALIDATE: accuracy and latency in the runtime."""
