"""The compiled simulator's inner workings: functions on plain arrays, no Python objects."""
