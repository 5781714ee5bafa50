"""Numbers, then the ways to show them.

published.py, published_likelihoods.py   the paper's tables, with their tolerances
comparison.py    ours beside the published numbers, from results alone
entries.py       a cell over its seeds and its verdict, the difference between two cells, the order of a column
judgement.py     whether a number agrees with the paper: intervals, verdicts, tests
findings.py      verdicts and differences in words
protocol.py      how our set-up differs from the paper's: "agrees" instead of "reproduced"
quantities.py    tables whose rows are quantities
rounding.py, metric_names.py   numbers and names as they are printed
terminal.py, turned.py, signs.py   in a terminal
markdown.py      Markdown, for files and for MLflow
latex.py, latex_text.py   LaTeX
plot.py          plots and figures
arrow_tables.py  the report as Arrow tables, CSV and Parquet
files.py         all of it: make a report, show it, write its files
"""
