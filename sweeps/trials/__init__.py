"""Code that runs in the process of a trial. This package does not use Ray.

run.py       trains or resumes, computes the measures, writes the results, reports progress
messages.py  the job that a process gets, and the messages that it sends
parts.py     keeps finished parts of a long measure
speed.py     training speed of a trial, and the gain from several workers
"""
