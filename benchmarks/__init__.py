"""Speed measurements, compared with what a user would write or choose instead; each file is a command with usage."""
