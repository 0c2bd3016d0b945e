"""The command line; the only home of click, rich and of printing."""
