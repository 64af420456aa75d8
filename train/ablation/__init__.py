"""Grids of pre-training runs and what is measured on each."""
