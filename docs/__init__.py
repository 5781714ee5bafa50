"""The pages in Markdown, the code that fills their tables (docs/report/), and the committed numbers (docs/results/)."""
