"""One file an architecture, each with `build(...) -> keras.Model`, found by name."""
