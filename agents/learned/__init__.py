"""Learned agents: policies in files, which run without the library that trained them."""
