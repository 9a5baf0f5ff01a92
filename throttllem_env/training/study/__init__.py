"""The study behind docs/agents.md: agents trained by recipe, held to the reference on requests they never saw."""
