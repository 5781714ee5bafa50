"""From cells to trials, hours and machines; nothing is trained here.

plan.py      which trials are done, half done or missing
estimate.py  seconds that the missing ones will take
probe.py     times a few steps if nothing similar has finished yet
demand.py    what a trial takes, and how many fit: CPUs, shares of a GPU, memory
price.py     machine-hours and their price
"""
