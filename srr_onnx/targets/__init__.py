"""VALIDATE: where models run; the only home of runtimes."""
