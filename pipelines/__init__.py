"""The experiments, one per file. Each file starts with its commands, the paper's numbers and the run time."""
