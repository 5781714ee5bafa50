"""Shows the content of the storage in MLflow.

view.py        RunView, CellView and SweepView: parameters, tags and numbers of a trial, a cell and a sweep
cells.py       makes a CellView, with numbers over seeds, of each cell of a table
notes.py       descriptions of experiments, runs and models, and saved views
views.py       makes a RunView of each trial from storage
tracker.py     sends views to MLflow from a background thread
reconciled.py  checks, without importing mlflow, whether MLflow still holds everything
database.py, server.py   check MLflow's database or server before MLflow opens it
mirror/        writes what MLflow lacks: runs (mirror.py), runs of cells (cells.py), metrics per epoch (stored.py),
               files and models (uploads.py, images.py); follows a moved storage (moved.py), and deletes a sweep's
               runs (removal.py). The only package that imports mlflow
"""
