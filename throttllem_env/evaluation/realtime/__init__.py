"""Real servers in real time, held to the simulators: the same load, the same actions."""
