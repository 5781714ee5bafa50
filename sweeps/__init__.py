"""Runs the trials of a table on Ray, shows them in MLflow, and reports the table.

Files and folders, from top to bottom:

commands/    the command `mvae`: run, prepare, ls, rm, verify
start.py     entry point of every pipeline: parses the command line, then runs the sweep
main.py      checks the options, then plans, reports or runs the sweep
search/      hyperparameter search: which settings to try, and what they achieved
grid.py      a sweep whose cells are all known in advance
driver.py    runs one command while holding the lease
engine/      runs trials on Ray: the cluster, Tune, Train. Only this package imports Ray
sweep.py     Sweep: the cells, the table and the texts that a pipeline defines
tracking/    shows the stored results in MLflow. Only tracking/mirror imports mlflow
trials/      what the process of one trial does: train, measure, write the result
table/       published numbers, our numbers, verdicts; output to terminal, Markdown, LaTeX, plots
planning/    turns cells into trials, estimates hours and machines, and decides how many trials share a machine or GPU
cli/         command-line options, and the output printed during a run
store/       files in the storage: results, lease, provenance; also temporary folders

cluster/slurm.sh decides when a SLURM job returns to the queue.

Each entry imports only entries below it (`tests/test_rooms.py`).
"""
