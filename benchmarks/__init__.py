"""Benchmarks of speed, memory and time estimates. Most files are commands: `python -m benchmarks.NAME`."""
