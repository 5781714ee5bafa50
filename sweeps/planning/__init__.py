"""Plans a sweep: which trials are missing, and how many hours and machines they need. This package trains nothing.

plan.py      turns cells into trials and finds which are done, partial or missing
listed.py    writes down which trials a sweep uses
state.py     the states of a trial, for plans, tables, searches and MLflow
estimate.py  estimates the time of the missing trials
probe.py     times a few steps if no similar trial has finished
demand.py    the CPUs, GPUs and memory per trial, and how many trials fit
price.py     machine-hours and their price
"""
