"""In front of live servers: the gateway, its books, and load for it.

Nothing is imported here: the gateway and the replay need the extra `serve`.
"""
