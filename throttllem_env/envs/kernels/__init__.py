"""The observation as compiled code; `throttllem_env.envs.features` says in plain terms what it holds.

Importing a module of this folder imports numba.
"""
