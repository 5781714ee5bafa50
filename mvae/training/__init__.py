"""Training: the loop over epochs, and what it needs.

loop.py           the loop: steps, validation, checkpoints, exact resume
steps.py          steps recorded as CUDA graphs
records.py        what a checkpoint says of itself
checkpoint.py     checkpoints: written whole, verified, the newest valid one found
saving.py         checkpoints written by a background thread
optimiser.py      Adam
data_parallel.py  one step shared by several processes
"""
