"""What is typed, and what is printed while a command runs.

options.py       the options that every pipeline has, as one typed value (trial_options.py: a trial's fields)
shared.py        what several pipelines share: presets, and options with their line of help
values.py        one word typed, one typed value out: fractions, seeds, sizes; names in a locale without UTF-8
tracking_uri.py  MLflow's address: as typed, as MLflow takes it, as messages show it
console.py       header, progress line, one line per finished trial
time_left.py     when the trials will be finished
words.py         times and counts in words
programs.py      how to type a program of this environment
signals.py       Ctrl-C, SIGTERM, SIGHUP
output.py        closed pipes and terminals, characters that a terminal lacks
"""
