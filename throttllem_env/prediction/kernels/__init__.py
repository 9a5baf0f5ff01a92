"""Projection, judging and search as compiled code; `throttllem_env.prediction.reference` is their plain form.

Importing a module of this folder imports numba.
"""
