"""vLLM V1's scheduling rules, stated a second time for the tests: no classes, no shared code.

State is four dictionaries by request; each rule is a few lines. It is slow on purpose.
"""

from math import ceil

Row = tuple[float, int, int]  # arrival_s, prompt tokens, output tokens


def schedules(
    rows: list[Row],
    num_blocks: int,
    budget: int,
    max_seqs: int,
    block: int,
    max_len: int,
    seconds_of,  # type: ignore[no-untyped-def]
) -> tuple[list[list[tuple[int, int]]], dict[int, float], dict[int, int]]:
    """Serve `rows` (sorted by arrival) alone; `seconds_of(work)` times an iteration.

    `work` is a list of (computed before, tokens, prompt) triples. Returns the (request, tokens) list of
    every iteration, finish times, and preemptions by request.
    """
    computed, generated, held = {}, {}, {}
    queue: list[int] = []
    batch: list[int] = []
    preemptions: dict[int, int] = {}
    history, finish = [], {}
    now, arrived = 0.0, 0
    while len(finish) < len(rows):
        if not queue and not batch:
            now = max(now, rows[arrived][0])
        while arrived < len(rows) and rows[arrived][0] <= now:
            computed[arrived] = generated[arrived] = held[arrived] = 0
            queue.append(arrived)
            arrived += 1
        left, chosen, someone_lost_blocks = budget, [], False

        def free() -> int:
            return num_blocks - 1 - sum(held.values())

        position = 0
        while position < len(batch) and left > 0:
            who = batch[position]
            known = rows[who][1] + generated[who]
            tokens = min(known - computed[who], left, max_len - computed[who] - 1)
            need = ceil((computed[who] + tokens) / block) - held[who]
            while need > free() and who in batch:
                last = batch.pop()
                held[last] = computed[last] = 0
                preemptions[last] = preemptions.get(last, 0) + 1
                queue.insert(0, last)
                someone_lost_blocks = True
            if who not in batch:
                break
            held[who] += max(need, 0)
            left -= tokens
            chosen.append((who, tokens))
            position += 1
        while left > 0 and queue and len(batch) < max_seqs and not someone_lost_blocks:
            who = queue[0]
            known = rows[who][1] + generated[who]
            if ceil(known / block) > free():
                break
            tokens = min(known, left)
            held[who] = ceil(tokens / block)
            left -= tokens
            chosen.append((who, tokens))
            batch.append(queue.pop(0))
        now += seconds_of([(computed[who], tokens, rows[who][1]) for who, tokens in chosen])
        history.append(chosen)
        for who, tokens in chosen:
            computed[who] += tokens
            if computed[who] == rows[who][1] + generated[who]:
                generated[who] += 1
            if generated[who] == rows[who][2]:
                finish[who] = now
                held[who] = 0
                batch.remove(who)
    return history, finish, preemptions
