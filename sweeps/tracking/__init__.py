"""MLflow as a view of storage.

view.py      RunView and SweepView: what MLflow shows of a run and of a sweep
views.py     the catalogue: makes these values from storage, key by key
notes.py     descriptions that people read in MLflow
tracker.py   sends views to MLflow from a background thread
reconciled.py  whether MLflow still holds everything; needs no mlflow
database.py, server.py   checks before MLflow opens its database or server
mirror/      writes what is missing; the only package that imports mlflow
"""
