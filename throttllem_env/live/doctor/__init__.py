"""What `throttllem doctor` looks at: whether GPU clocks can be controlled here, and if not, what to do.

Every part looks at one thing and never raises: what cannot be found out is a finding too. Nothing is changed
but by `clocks.measure` and `books.clean`, which are asked for.
"""
