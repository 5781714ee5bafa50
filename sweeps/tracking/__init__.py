"""MLflow as a view of storage.

view.py        RunView and SweepView: parameters, tags and numbers of a run and of a sweep
notes.py       the text at the top of a run's page, and the Source column
views.py       the catalogue: makes views from storage, key by key
tracker.py     sends views to MLflow from a background thread
reconciled.py  whether MLflow still holds everything; needs no mlflow
database.py, server.py   checks before MLflow opens its database or server
mirror/        writes what is missing: runs (mirror.py), metrics by epoch (stored.py), files and models (uploads.py).
               The only package that imports mlflow
"""
