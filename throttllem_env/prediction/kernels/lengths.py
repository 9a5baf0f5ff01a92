"""Predicted output lengths; `throttllem_env.prediction.lengths` says what they mean."""

import numpy as np

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import LengthTable, Requests
from throttllem_env.types import FloatArray, IntArray


@inlined
def predict(table: LengthTable, requests: Requests, n: int, predicted: IntArray) -> None:
    """Fill in predicted lengths, each within the context and larger than what has been generated.

    Args:
        table: The predictor.
        requests: n of them.
        n: How many.
        predicted: int64[n], is filled in.
    """
    for row in range(n):
        generated = requests.generated_tokens[row]
        if len(table.by_request):
            found = table.by_request[requests.request_id[row]]
        else:
            bin_ = np.searchsorted(table.edges, requests.prompt_tokens[row], side="right")
            found = table.by_progress[bin_, min(generated, table.by_progress.shape[1] - 1)]
        context = table.max_model_len - requests.prompt_tokens[row]
        predicted[row] = outlive(found, generated, context, table.cap_tokens)


@inlined
def outlive(predicted: int, generated: int, context: int, cap_tokens: int) -> int:
    """A length that is still to come: the predicted one, else the cap, else all of the context."""
    if predicted > generated:
        alive = min(predicted, context)
    elif generated < cap_tokens:
        alive = min(cap_tokens, context)
    else:
        alive = context
    return max(alive, generated + 1)


@inlined
def remaining_deadlines(
    requests: Requests, n: int, e2e_s: float, now_s: float, margin: float, deadline_s: FloatArray
) -> None:
    """Fill in by when requests must complete; see `feasibility.deadlines_s`. Lost ones have no deadline."""
    for row in range(n):
        due_s = requests.arrival_s[row] + e2e_s
        left_s = max(due_s - now_s, 0.0)
        deadline_s[row] = np.inf if requests.lost[row] else due_s - margin * left_s
