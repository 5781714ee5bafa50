"""Files on disk or in object storage, and who may write them.

store.py       the folder of one storage name, and its files
results.py     results: one JSON file per key and measure
lists.py       the trial keys of each sweep
pruned.py      trials that a search stopped early
trained.py     loads the model of a finished trial
lease.py       ensures that only one driver works on a name
processes.py   identifies a process, and checks whether the process has ended
scratch.py     makes temporary folders, and deletes the folders of dead processes
provenance.py  machine, versions and commit, recorded with every result
sqlite.py      SQLite files and their URIs
"""
