"""PolyMNIST: one digit in five handwritings on five backgrounds (Sutter et al. 2021), made here from other data."""
