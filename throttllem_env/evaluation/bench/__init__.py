"""How fast it is on this machine: simulator, environments, decisions, start-up, training."""
