"""The pages (Markdown), what fills their tables (docs/report/), and the numbers they are made of (docs/results/)."""
