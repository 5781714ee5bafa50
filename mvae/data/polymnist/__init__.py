"""PolyMNIST: one digit in five handwritings on five backgrounds (Sutter et al. 2021), composed here.

polymnist.py   the three data sets, with different digits and backgrounds
composing.py   draws digits on crops of the backgrounds
"""
