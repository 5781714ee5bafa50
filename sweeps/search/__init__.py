"""Searches for better settings of an arm.

space.py     the settings to vary, their ranges, and the epochs at which trials are compared
study.py     records the tried settings, and chooses the next settings (tried.py: the record of one trial)
database.py  the database of the study
driver.py    runs a search, from the command to the exit code
report.py, plots.py   the search's table, plots, and command for the best settings
"""
