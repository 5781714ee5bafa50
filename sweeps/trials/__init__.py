"""What one trial's process does; no Ray.

run.py       train or resume, compute the measures, write the results, report progress
messages.py  the job that a process gets, and what it reports
parts.py     finished parts of a long measure
speed.py     how fast a trial trains, and what its workers gain
"""
