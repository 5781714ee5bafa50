"""Runs a table's trials: plans them, trains them on Ray, shows them in MLflow, reports the table. From top to bottom:

start.py     what a pipeline ends with: read the command line, then run
main.py      from options to exit code: refuse, plan, report or drive
search/      a search: which settings to try, what was tried, what came of it
grid.py      a grid: a sweep whose cells are all known
driver.py    one command at work, under the lease
engine/      Ray: the cluster, Tune, Train. The only room that imports Ray
sweep.py     Sweep: what a pipeline asks for
tracking/    what MLflow shows: views of what is stored. Only tracking/mirror imports mlflow
trials/      what one trial's process does: train, measure, write the result
table/       the published numbers, ours beside them, verdicts; terminal, Markdown, LaTeX, plots
planning/    from cells to trials, hours and machines; how many trials share a machine or a GPU
cli/         what is typed, and what is printed while it runs
store/       files of a storage: results, lease, scratch folders, provenance

A room imports only rooms below it (`tests/test_rooms.py`).
"""
