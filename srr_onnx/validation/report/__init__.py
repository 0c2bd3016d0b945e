"""VALIDATE: one HTML page on a result: `build` fills it from results, `write` makes the file."""
