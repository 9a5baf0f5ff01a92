"""Every hardware model against every data set that it can be held to: `docs/fidelity.md`."""
