"""How a data set lies on disk: one file a layout, found by name."""
