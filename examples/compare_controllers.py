"""Compare controllers on ten minutes of generated chat requests, and use the figures."""

from throttllem_env.evaluation.compare import compare
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.settings import Settings

AGENTS = ("max-frequency", "static-frequency:mhz=990", "throttllem")


def main() -> None:
    """Run three agents and print what each saves."""
    settings = Settings(AGENTS, trace="azure-conv-like", load=0.5, duration_s=600)
    document = results(compare(settings))
    for entry in document["summary"]:
        saved, in_time = entry["saving"]["energy"], entry["means"]["slo_attainment"]
        print(f"{entry['agent']}: {saved:.1%} less energy, {in_time:.2%} in time")


if __name__ == "__main__":
    main()
