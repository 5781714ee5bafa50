"""From cells to trials, hours and machines; nothing is trained here.

plan.py      which trials are done, half done or missing
state.py     where a trial stands: one vocabulary for plans, tables, searches and MLflow
estimate.py  seconds that the missing ones will take
probe.py     times a few steps if nothing similar has finished yet
demand.py    what a trial takes (CPUs, its share of a GPU, memory), and how many fit
price.py     machine-hours and their price
"""
