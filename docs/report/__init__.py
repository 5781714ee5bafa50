"""Documents: the tables, figures and pictures of README.md and docs/, filled from committed results alone.

    python -m docs.report                     what `make report` types
    python -m docs.report --store URI         first takes what an MLflow store holds of our sweeps into docs/results/

No measured number is typed by hand. What stands between `<!-- ours:NAME -->` and `<!-- /ours -->` is made here. A NAME
is an address in a committed file, or a derived value; a number has its format behind it: `NAME:.2f`.

    spans.py        finds and fills the spans of a page
    sources.py      the committed files; addresses of benchmarks, of output and of values noted by hand
    numbers.py      docs/results/*.csv: numbers, each with its trial, and metrics by epoch
    tables.py       tables of numbers, and addresses of their cells; tables.csv names them, rows.csv their rows
    findings.py     values derived from several cells or benchmarks, and the sentences held against the numbers
    table4.py       the runs behind docs/table4.md
    scorecard.py    the supplement's items (items.py, items.csv) and our runs of each
    options.py      the table of all pipelines' options
    pictures.py     pictures, drawn again only if their numbers have changed
    refresh.py      takes new numbers from an MLflow store

To add a number to a page: find its address with `python -m docs.report --names`, or derive it in findings.py.
"""
