"""The reference controller, its autoscaler, and agents that learn."""
