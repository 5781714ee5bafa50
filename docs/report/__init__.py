"""Documents: the tables, figures and pictures of README.md and docs/, filled from committed results alone.

    python -m docs.report                     what `make report` types
    python -m docs.report --store URI         first takes what an MLflow store holds of our sweeps into docs/results/

No measured number is typed by hand. What stands between `<!-- ours:NAME -->` and `<!-- /ours -->` is made here,
from docs/results/*.csv, docs/output/*.txt and benchmarks/results/*.json. A module a topic says what each NAME is.
"""
