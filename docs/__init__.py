"""Contains the pages in Markdown, the code that fills their tables (report/), and the committed numbers (results/)."""
