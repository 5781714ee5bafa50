"""Converts a report to Arrow tables, and Arrow tables to CSV and Parquet."""

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from sweeps.table.comparison import Report


def entry_table(report: Report) -> pa.Table:
    """Returns a table with one line per (row, column).

    The column `keys` lists the keys of the cell's trials in order of seeds, separated by spaces.
    """
    schema = pa.schema(
        [
            ("row", pa.string()),
            ("column", _column_type(report)),
            ("mean", pa.float64()),
            ("spread", pa.float64()),
            ("n", pa.int64()),
            ("of", pa.int64()),
            ("failed", pa.int64()),
            ("published", pa.float64()),
            ("difference", pa.float64()),
            ("half_width", pa.float64()),
            ("verdict", pa.string()),
            ("departures", pa.string()),
            ("metric", pa.string()),
            ("keys", pa.string()),
        ]
    )
    lines = [
        {
            **{name: getattr(entry, name) for name in schema.names if name not in ("departures", "keys")},
            "departures": "; ".join(entry.departures),
            "keys": " ".join(run.key for run in entry.runs),
        }
        for entry in report.in_order()
    ]
    return pa.Table.from_pylist(lines, schema=schema)


def run_table(report: Report) -> pa.Table:
    """Returns a table with one line per (row, column, seed): the value, and the key of its trial."""
    schema = pa.schema(
        [
            ("row", pa.string()),
            ("column", _column_type(report)),
            ("seed", pa.int64()),
            ("state", pa.string()),
            ("value", pa.float64()),
            ("epochs", pa.int64()),
            ("key", pa.string()),
            ("measure", pa.string()),
            ("link", pa.string()),
            ("mixed", pa.bool_()),
            ("error", pa.string()),
        ]
    )
    lines = [{name: getattr(run, name) for name in schema.names} | {"state": run.state.word} for run in report.runs]
    return pa.Table.from_pylist(lines, schema=schema)


def _column_type(report: Report) -> pa.DataType:
    return pa.string() if any(isinstance(column, str) for column in report.columns) else pa.float64()


def as_csv(table: pa.Table) -> bytes:
    """Returns the content of a CSV file with the table. Only values that need quotes are quoted."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return bytes(sink.getvalue())


def as_parquet(table: pa.Table) -> bytes:
    """Returns the content of a Parquet file with the table."""
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())
