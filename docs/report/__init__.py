"""Fills the tables, figures and pictures of README.md and docs/ from committed results.

    python -m docs.report                     what `make report` runs
    python -m docs.report --storage FOLDER    first adds the results of our sweeps in FOLDER to docs/results/

Text between `<!-- ours:NAME -->` and `<!-- /ours -->` is generated; no measured number is typed by hand. A NAME is the
address of a committed value, or of a value derived from several committed ones. A format may follow it, as in Python:
`NAME:.2f`.

    spans.py        finds and fills the spans of a page
    numbers.py      docs/results/*.csv: numbers with their trials, and metrics by epoch
    sources.py      all committed files; addresses of benchmarks, command output, values noted by hand, and options
    tables.py       tables of numbers and addresses of their cells; tables.csv lists them, rows.csv names their rows
    findings.py     values derived from several cells; checks that the pages' sentences are still true
    speed.py        the same for docs/speed.md, from benchmarks/results/
    table4.py       the runs behind docs/table4.md
    scorecard.py    our numbers for each item of the supplement; items.csv describes the items
    pictures.py     pictures, redrawn only if their numbers have changed
    refresh.py      takes new numbers from a storage

To add a number to a page, list all names with `python -m docs.report --names`, or derive the number in findings.py.
"""
