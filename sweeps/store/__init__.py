"""What lies on disk or in object storage, and who may write it.

store.py       the folder of one storage name, and what is in it
results.py     one JSON file per key and measure; a table is made from these alone
pruned.py      trials that a search stopped early
lease.py       one driver per name
processes.py   which process made something, and whether it is gone
scratch.py     temporary folders, and the removal of those of dead processes
provenance.py  machine, versions and commit beside every result
sqlite.py      SQLite files and their URIs
"""
