"""Where files lie: folders (files.py) and object storage, s3 and gs (objects.py, patience.py)."""
