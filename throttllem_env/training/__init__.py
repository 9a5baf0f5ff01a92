"""Training of learned agents: one command, several learners, policies that run without them."""
