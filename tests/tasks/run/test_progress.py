from types import SimpleNamespace

from tasks.run.progress import progress


def test_what_came_before_the_first_tokens_counts_in_no_rate(monkeypatch):
    clock, tokens, lines = SimpleNamespace(now=0.0), SimpleNamespace(count=0), []
    monkeypatch.setattr("tasks.run.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("tasks.run.progress.tell", lambda line, *values: lines.append(line % values))

    def at(now, count):
        clock.now, tokens.count = now, count
        advance(1)

    with progress("rewriting", 10, "requests", lambda: tokens.count) as advance:
        advance(4)  # from a store
        at(300, 50)  # a server has started
        at(320, 150)
    assert lines == [
        "rewriting: 5 of 10 requests.",
        "rewriting: 6 of 10 requests, 3.0 requests a minute, 5 tokens/s, 0:01:20 left.",
        "rewriting: 6 requests in 320.0 s (1.1 requests a minute).",
    ]
