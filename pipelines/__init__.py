"""The experiments, one file per experiment. Each file starts with commands, the paper's numbers and the run time."""
