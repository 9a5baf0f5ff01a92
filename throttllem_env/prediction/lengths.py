"""Output-length predictors: the only rooms that may speak of the future (docs/design.md, Contracts).

`learned` knows only what a server can learn from the past; `noisy-P` and `oracle` look at the true
lengths and are labelled so wherever their results appear.
"""

import re
from typing import Protocol

import numpy as np

from throttllem_env.prediction.kernels.columns import LengthTable, Requests
from throttllem_env.prediction.kernels.lengths import predict
from throttllem_env.suggest import nearest
from throttllem_env.traces import Trace
from throttllem_env.types import IntArray, RequestTable

Z95 = 1.959963984540054
"""95 % of a normal distribution lies within this many standard deviations."""

PROMPT_BINS = 8
DEFAULT_QUANTILE = 0.9


class LengthPredictor(Protocol):
    """Predicts how many tokens requests will have generated when they end."""

    @property
    def name(self) -> str:
        """Label in tables and files."""
        ...

    def predict(self, requests: RequestTable) -> IntArray:
        """Predicted output lengths, enlarged by the error bound.

        Args:
            requests: n unfinished requests.

        Returns:
            int64[n], each larger than the tokens generated so far.
        """
        ...


NOTHING_KNOWN = np.empty(0, np.int64)


class TabulatedLengths:
    """A predictor that kernels can read.

    Attributes:
        table: What they read.
    """

    table: LengthTable

    def predict(self, requests: RequestTable) -> IntArray:
        """See `LengthPredictor`."""
        predicted = np.empty(len(requests), np.int64)
        columns = Requests(*(getattr(requests, name) for name in Requests._fields))
        predict(self.table, columns, len(requests), predicted)
        return predicted


class OracleLengths(TabulatedLengths):
    """Knows the true lengths."""

    name = "oracle"

    def __init__(self, trace: Trace, cap_tokens: int, max_model_len: int) -> None:
        """Look at a trace.

        Args:
            trace: The trace that is served; `request_id` indexes it.
            cap_tokens: See `LengthTable`.
            max_model_len: See `LengthTable`.
        """
        self.table = self._known(trace.output_tokens, cap_tokens, max_model_len)

    @staticmethod
    def _known(by_request: IntArray, cap_tokens: int, max_model_len: int) -> LengthTable:
        nobody = np.zeros((1, 1), np.int64)
        return LengthTable(np.array(by_request, np.int64), NOTHING_KNOWN, nobody, cap_tokens, max_model_len)


class NoisyLengths(OracleLengths):
    """True lengths with a relative error, enlarged by its bound (paper, section V-A).

    r_hat = r (1 + e) (1 + P/100), e normal with 95 % of |e| <= P %, drawn once per request.
    """

    def __init__(self, trace: Trace, percent: float, seed: int, cap_tokens: int, max_model_len: int) -> None:
        """Draw the errors.

        Args:
            trace: The trace that is served.
            percent: P, the error that 95 % of requests stay within.
            seed: Seeds the errors.
            cap_tokens: See `LengthTable`.
            max_model_len: See `LengthTable`.
        """
        super().__init__(trace, cap_tokens, max_model_len)
        self.name = f"noisy-{percent:g}"
        error = np.random.default_rng([seed, 0x1E46]).normal(0.0, percent / 100 / Z95, len(trace))
        enlarged = trace.output_tokens * np.maximum(1 + error, 0.0) * (1 + percent / 100)
        by_request = np.maximum(np.ceil(enlarged).astype(np.int64), 1)
        self.table = self._known(by_request, cap_tokens, max_model_len)


class LearnedLengths(TabulatedLengths):
    """A quantile of the output length given the prompt and the tokens generated so far.

    Lengths of past requests are binned by prompt length. For a request that has generated g tokens the
    prediction is the q-quantile among the past requests of its bin that went beyond g: the quantile is
    the error bound, and a request that lives on is predicted anew. Beyond every past request it is
    the cap, then what is left of the context.
    """

    name = "learned"

    def __init__(
        self,
        prompt_tokens: IntArray,
        output_tokens: IntArray,
        cap_tokens: int,
        max_model_len: int,
        quantile: float = DEFAULT_QUANTILE,
    ) -> None:
        """Learn from past requests.

        Args:
            prompt_tokens: int64[m] of past requests.
            output_tokens: int64[m].
            cap_tokens: See `LengthTable`.
            max_model_len: See `LengthTable`.
            quantile: Share of past requests that end by the predicted length.

        Raises:
            ValueError: No past requests, or a quantile outside (0, 1).
        """
        if not len(prompt_tokens):
            raise ValueError("length predictor 'learned': no past requests to learn from")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile = {quantile}: must lie between 0 and 1")
        shares = np.linspace(0, 1, PROMPT_BINS + 1)[1:-1]
        found = np.quantile(prompt_tokens, shares, method="inverted_cdf")
        # Edges are prompts that occurred, and none is the shortest: so no bin is empty.
        edges: IntArray = np.unique(found[found > prompt_tokens.min()]).astype(np.int64)
        bins = np.searchsorted(edges, prompt_tokens, side="right")
        longest = int(output_tokens.max())
        by_progress = np.stack(
            [conditional_quantile(output_tokens[bins == b], quantile, longest) for b in range(len(edges) + 1)]
        )
        self.table = LengthTable(NOTHING_KNOWN, edges, by_progress, cap_tokens, max_model_len)


def conditional_quantile(lengths: IntArray, quantile: float, longest: int) -> IntArray:
    """Quantile of the lengths beyond g, for g = 0 .. longest.

    Args:
        lengths: int64[m].
        quantile: In (0, 1).
        longest: Largest g.

    Returns:
        int64[longest + 1]; 0 where no length is beyond g.
    """
    ordered = np.sort(lengths)
    at_most = np.searchsorted(ordered, np.arange(longest + 1), side="right")
    beyond = len(ordered) - at_most
    index = at_most + np.ceil(quantile * beyond).astype(np.int64) - 1
    found: IntArray = np.where(beyond > 0, ordered[np.minimum(index, len(ordered) - 1)], 0)
    return found


def make_length_predictor(
    spec: str, trace: Trace, past: Trace, seed: int, cap_tokens: int, max_model_len: int
) -> LengthPredictor:
    """Build a predictor by name.

    Args:
        spec: `learned`, `learned-Q` (quantile Q percent), `noisy-P` or `oracle`.
        trace: The trace that is served (looked at by `noisy-P` and `oracle` alone).
        past: Requests that `learned` may learn from.
        seed: Seeds the errors of `noisy-P`.
        cap_tokens: Longest output that clients ask for.
        max_model_len: Longest prompt plus output.

    Raises:
        ValueError: No such predictor.
    """
    match = re.fullmatch(r"(oracle|learned|noisy)(?:-(\d+(?:\.\d+)?))?", spec)
    kind, number = match.groups() if match else ("", None)
    if kind == "oracle" and number is None:
        return OracleLengths(trace, cap_tokens, max_model_len)
    if kind == "noisy" and number is not None:
        return NoisyLengths(trace, float(number), seed, cap_tokens, max_model_len)
    if kind == "learned":
        quantile = float(number) / 100 if number else DEFAULT_QUANTILE
        return LearnedLengths(past.prompt_tokens, past.output_tokens, cap_tokens, max_model_len, quantile)
    raise ValueError(
        f"length predictor = {spec!r}: unknown; {nearest(spec, ('learned', 'noisy-30', 'oracle'))}"
    )
