"""MLflow as a view of storage.

view.py      what MLflow should show of a sweep and of its runs, as plain values
views.py     makes these values from storage, key by key
notes.py     descriptions that people read in MLflow
tracker.py   sends views to MLflow from a background thread
database.py, server.py   checks before MLflow opens its database or server
mirror/      writes what is missing; the only package that imports mlflow
"""
