"""Runs, metrics, comparisons, and what they leave behind: tables, plots, TensorBoard."""
