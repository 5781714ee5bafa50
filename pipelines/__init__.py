"""The experiments: one file each, which opens with what it reproduces, what to expect and what to type."""
