"""Many calls whose results are kept: what a result is known by, where calls are made, how they go on."""
