"""Searched policies that supervise the projection; they need NumPy alone."""
