"""What the data are: where they come from, how they lie on disk, the table of pairs."""
