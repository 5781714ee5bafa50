"""CelebA, drawn faces with the same attributes, and the views of section 10 (vision)."""
