"""A search: what varies, what was tried, what came of it.

space.py     which settings vary, their ranges, and at which epochs trials are compared
study.py     what was tried, and what to try next (tried.py: a trial of it)
database.py  where the study lies
driver.py    from command to exit code
report.py, plots.py   its table, its command to paste, its pictures
"""
