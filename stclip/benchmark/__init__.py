"""Measuring speed and memory: the work, its units, and tables of the results."""
