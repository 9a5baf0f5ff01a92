"""The study behind docs/agents.md: agents by recipe, held to the reference on requests they never saw."""
