"""The command `mvae`: one file per subcommand, each with its parser and a function that returns the exit code.

entry.py     `mvae`: chooses the subcommand, and turns errors into exit codes (listed in cli/programs.py)
run.py       `mvae run PIPELINE`: the same as `python pipelines/PIPELINE.py`
prepare.py   `mvae prepare DATASET`: downloads and converts a data set
ls.py        `mvae ls`: the sweeps of a storage
rm.py        `mvae rm SWEEP`: deletes the trials that only this sweep uses; removal.py: decides what may be deleted
verify.py    `mvae verify N`: runs N finished trials again and compares the numbers; again.py: chooses and runs trials
options.py   the parser and the options that subcommands share
"""
