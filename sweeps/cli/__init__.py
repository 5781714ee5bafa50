"""The command line: options, and everything that is printed while a command runs.

options.py       options of every pipeline, as one typed value; trial_options.py: a trial's hyper-parameters
help.py          the two help pages, and the parser
shared.py        presets, options and checks that several pipelines share
values.py        types of option values: fractions, seeds, sizes, folders
tracking_uri.py  MLflow's address: parsed, checked, and without credentials
console.py       header, progress line, one line per finished trial
time_left.py     estimate of the time left
words.py         formats of times and counts
data_lines.py    lines about downloads and conversions of data sets
browsing.py      the last line of every command, which says how to open MLflow
programs.py      exit codes; names of programs and pipelines, as the user can type them; how to resume a sweep
signals.py       Ctrl-C, SIGTERM, SIGHUP
output.py        closed pipes and terminals, characters that a terminal lacks
"""
