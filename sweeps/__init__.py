"""Runs the trials of a table on Ray, shows them in MLflow, and reports the table. From top to bottom:

start.py     entry point of every pipeline: parses the command line, then runs the sweep
main.py      from options to exit code: refuse, plan, report or drive
search/      hyperparameter search: which settings to try, and what they achieved
grid.py      a sweep whose cells are all known in advance
driver.py    runs one command while holding the lease
engine/      Ray: the cluster, Tune, Train. The only room that imports Ray
sweep.py     Sweep: the cells, the table and the texts that a pipeline defines
tracking/    what MLflow shows: views of what is stored. Only tracking/mirror imports mlflow
trials/      what the process of one trial does: train, measure, write the result
table/       published numbers, our numbers, verdicts; output to terminal, Markdown, LaTeX, plots
planning/    from cells to trials, hours and machines; how many trials share a machine or a GPU
cli/         command-line options, and what is printed during a run
store/       files of a storage: results, lease, scratch folders, provenance

A room imports only rooms below it (`tests/test_rooms.py`).
"""
