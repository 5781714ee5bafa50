"""Speed measurements: our code against what a user would write instead. Each file is a command that states its
usage."""
