"""Speed, measured beside what a user would write or pick instead; each file is a command and says how to run it."""
