"""What the gateway tells Prometheus, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from throttllem_env.live.ledger import Entry, State
from throttllem_env.live.upstreams import Router

FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
BETWEEN_BUCKETS_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 5)
WHOLE_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 25, 30, 45, 60, 120, 300, 600)


class GatewayMetrics:
    """Counters and histograms; the ledger tells of tokens and ends.

    Args:
        router: Whose upstreams are shown.
        e2e_slo_s: E2E SLO that attainment is counted against; None counts none.

    Attributes:
        registry: Where others may show theirs, too.
    """

    def __init__(self, router: Router, e2e_slo_s: float | None) -> None:
        self._router, self._e2e_slo_s = router, e2e_slo_s
        self.registry = CollectorRegistry()
        self._set_up_load()
        self._set_up_latency()

    def _set_up_load(self) -> None:
        to = self.registry
        self._running = Gauge("throttllem_requests_running", "Requests at the upstreams", registry=to)
        self._queued = Gauge("throttllem_requests_queued", "Requests waiting in the gateway", registry=to)
        self._ended = Counter(
            "throttllem_requests", "Requests that left, by outcome", ["outcome"], registry=to
        )
        self._prompt = Counter("throttllem_prompt_tokens", "Prompt tokens of requests that left", registry=to)
        self._generated = Counter("throttllem_generated_tokens", "Output tokens", registry=to)
        self.received_bytes = Counter("throttllem_received_bytes", "Bytes of requests", registry=to)
        self.sent_bytes = Counter("throttllem_sent_bytes", "Bytes of responses", registry=to)
        self._at = Gauge("throttllem_upstream_requests", "Requests at an upstream", ["upstream"], registry=to)
        self._active = Gauge(
            "throttllem_upstream_active", "1 if new requests go there", ["upstream"], registry=to
        )

    def _set_up_latency(self) -> None:
        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, what, buckets=buckets, registry=self.registry)

        name = "throttllem_time_to_first_token_seconds"
        self._first = histogram(name, "Arrival to first token", FIRST_TOKEN_BUCKETS_S)
        name = "throttllem_time_between_tokens_seconds"
        self._between = histogram(name, "One token to the next", BETWEEN_BUCKETS_S)
        name = "throttllem_e2e_seconds"
        self._whole = histogram(name, "Arrival to last token, of finished requests", WHOLE_BUCKETS_S)
        counts = "Requests within the E2E SLO (met), and all others (missed)"
        self._slo = Counter("throttllem_slo_requests", counts, ["result"], registry=self.registry)

    def on_tokens(self, entry: Entry, tokens: int, gap_s: float | None) -> None:
        """Count tokens that passed."""
        self._generated.inc(tokens)
        if gap_s is None:
            assert entry.first_token_s is not None, "these are its first tokens"
            self._first.observe(entry.first_token_s - entry.arrival_s)
            return
        for _ in range(tokens):
            self._between.observe(gap_s)

    def on_end(self, entry: Entry) -> None:
        """Count a request that left."""
        assert entry.end_s is not None, "it has ended"
        last_s = entry.end_s if entry.last_token_s is None else entry.last_token_s
        e2e_s = last_s - entry.arrival_s
        finished = entry.state is State.FINISHED
        self._ended.labels(entry.state.value).inc()
        self._prompt.inc(entry.prompt_tokens or 0)
        if finished:
            self._whole.observe(e2e_s)
        if self._e2e_slo_s is not None:
            self._slo.labels("met" if finished and e2e_s <= self._e2e_slo_s else "missed").inc()

    def page(self, running: int, queued: int) -> bytes:
        """The page that Prometheus reads.

        Args:
            running: Requests at the upstreams.
            queued: Requests waiting in the gateway.
        """
        self._running.set(running)
        self._queued.set(queued)
        self._at.clear()  # servers come and go
        self._active.clear()
        for upstream in self._router.upstreams:
            self._at.labels(upstream.url).set(upstream.in_flight)
            self._active.labels(upstream.url).set(self._router.is_active(upstream))
        return generate_latest(self.registry)
