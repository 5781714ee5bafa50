"""Where files lie: place.py says what all places can do; folders (files.py), object storage, s3 and gs (objects.py)."""
