"""Fills the tables, numbers and pictures of README.md and docs/ from committed results.

    python -m docs.report                     what `make report` runs
    python -m docs.report --storage FOLDER    first adds the results of our sweeps in FOLDER to docs/results/

A span is the text between `<!-- ours:NAME -->` and `<!-- /ours -->`. It is generated, so no measured number is typed by
hand. NAME names a committed value, or a value derived from several committed values. A Python format may follow the
name: `NAME:.2f`.

    spans.py        finds and fills the spans of a page
    numbers.py      reads and writes docs/results/*.csv: numbers with their trials, and metrics by epoch
    sources.py      reads all committed files: numbers, benchmarks, command output, values noted by hand, and options
    tables.py       makes tables of numbers; tables.csv lists the tables, and rows.csv names their rows
    findings.py     derives values from several cells, and checks that the pages' sentences are still true
    speed.py        derives the values of docs/speed.md from benchmarks/results/, and checks its sentences
    table4.py       derives the values of docs/table4.md from the runs behind that page
    scorecard.py    lists our numbers for each item of the supplement; items.csv describes the items
    pictures.py     draws pictures whose numbers have changed
    refresh.py      takes new numbers from a storage

To add a number to a page, list all names with `python -m docs.report --names`, or derive the number in findings.py.
"""
