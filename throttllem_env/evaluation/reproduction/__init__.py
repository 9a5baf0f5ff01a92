"""The paper's evaluation, run again: every figure of docs/reproduction.md comes from here."""
