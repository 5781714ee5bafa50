"""Trains a model: the loop over epochs and its parts.

loop.py           the training loop: steps, validation, checkpoints, exact resume
steps.py          optimiser steps, recorded as CUDA graphs on a GPU
records.py        the contents of a checkpoint's manifest
checkpoint.py     writes, verifies, finds and deletes checkpoints
saving.py         writes checkpoints from a background thread
optimiser.py      Adam, an arm's own optimiser, and learning rates by step
usage.py          CPU time and memory of the process per epoch
data_parallel.py  shares each step between several processes
"""
