"""Strategies to compare with, one short file each."""
