"""How far a result is from the best possible: a proven lower bound, and the best schedule in hindsight."""
