"""Measures the speed of our code against code that a user would write instead. Each file is a command."""
