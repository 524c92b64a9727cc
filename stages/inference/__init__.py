"""From the pixels of a film to its mask, by an exported model."""
