"""Where files lie. Readers and writers do not know which kind of place they use.

place.py     Place: what every kind of place can do
files.py     folders on a disk
objects.py   object storage, s3 and gs; `place()` makes a path or a URI a place
clock.py     the time, and waiting
"""
