"""Learners of Stable-Baselines3 and sb3-contrib; importing these modules imports torch."""
