"""The networks of the supplement's Figures 1 to 4, one file a kind of modality."""
