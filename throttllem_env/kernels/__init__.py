"""What all kernels share: arrays found by their addresses.

Importing a module of this folder imports numba.
"""
