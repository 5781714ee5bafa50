"""Storage of files, on disk or in object storage, behind one interface.

place.py     Place: the operations that every storage backend has
files.py     folders on a disk, with atomic writes and locks
objects.py   object storage (s3, gs); `place()` turns a path or a URI into a Place
clock.py     time and waiting
"""
