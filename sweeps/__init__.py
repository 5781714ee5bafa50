"""Runs a table's trials: plans them, trains them on Ray, shows them in MLflow, reports the table. From top to bottom:

main.py      from options to exit code: refuse, plan, report or drive
search/      a search: which settings to try, what was tried, what came of it
grid.py      a grid: a sweep whose cells are all known
driver.py    one command at work, under the lease
engine/      Ray: the cluster, Tune, Train, shares of GPUs. The only room that imports Ray
sweep.py     Sweep: what a pipeline asks for
tracking/    MLflow: views of what is stored. Only tracking/mirror imports mlflow
trials/      what one trial's process does: train, measure, write the result
table/       ours beside the published numbers: statistics, terminal, Markdown, LaTeX, plots
planning/    from cells to trials, hours and machines
cli/         what is typed, and what is printed while it runs
store/       files of a storage: results, lease, scratch folders, provenance

A room imports only rooms below it (`tests/test_rooms.py`).
"""
