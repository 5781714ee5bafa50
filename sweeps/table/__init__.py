"""Compares our results with the published numbers, and writes the comparison in all output formats.

published.py, published_likelihoods.py   the paper's tables, with their tolerances
published_polymnist.py   coherence published in two studies of the MVAE's successors
comparison.py    builds a report from stored results: our numbers and the published ones
entries.py       a cell with its seeds and verdict, the difference between two cells, the order of the arms
judgement.py     statistics: intervals, verdicts, tests
remembered.py    a cache of statistics, so that an unchanged report needs no scipy
findings.py      verdicts and differences in words
protocol.py      differences between our settings and the paper's; decides "agrees" or "reproduced"
quantities.py    tables whose rows are quantities
rounding.py, metric_names.py   printed forms of numbers and names
terminal.py, turned.py, signs.py   output to the terminal
markdown.py      Markdown, for files and for MLflow
latex.py, latex_text.py   LaTeX
plot.py          plots and figures
arrow_tables.py  the report as Arrow tables, CSV and Parquet
files.py         the entry point: builds a report, prints it, writes its files
"""
