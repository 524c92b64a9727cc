"""Sources of data, their layouts on disk, and the table of pairs."""
