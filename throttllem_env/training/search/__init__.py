"""CMA-ES over policies that supervise the projection: the learner that needs no gradients and no torch."""
