"""The experiments, one file each. A file starts with what to type, what the paper reports, and how long it takes."""
