"""One file a benchmark; its name, with dashes, is what the command line takes."""
