"""Sources of the bytes: one module per source, found by its name."""
