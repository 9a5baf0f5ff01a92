"""Trials of the clock guardian: processes are killed at random moments, and every GPU must be given back.

Each trial has emulated GPUs of its own and a controller in a process of its own, which locks clocks as
fast as it can, through real pynvml over a test double of NVML, or on the emulated GPUs directly.
`scripts/guardian_trials.py` runs them.
"""
