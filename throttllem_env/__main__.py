"""`python -m throttllem_env` is `throttllem`."""

from throttllem_env.cli import main

main()
