"""One module per benchmark; its name, with dashes, is its argument."""
