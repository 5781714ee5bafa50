"""Plans a sweep: which trials are missing, and how many hours and machines they need. This package trains nothing.

plan.py      turns cells into trials and finds which are done, partial or missing
listed.py    records which trials a sweep uses
state.py     the states of a trial, for plans, tables, searches and MLflow
times.py     finds the time of each kind of trial, from finished trials or a probe
probe.py     times a few steps if no similar trial has finished
kept.py      keeps the times from a probe for a day
load.py      measures how busy other programs keep this machine
estimate.py  estimates the time of a command as a range
gpu.py       estimates the GPU hours of a plan, from trials that were measured on a GPU
demand.py    computes the CPUs, GPUs and memory per trial, and how many trials run at the same time
price.py     describes the time and the price of a command in words
"""
