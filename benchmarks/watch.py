"""What the benchmarks that run studies print as they go."""

from ivra.studies import Watch


class Printed(Watch):
    """A line a cell."""

    def on_done(self, name: str, failed: str | None) -> None:
        print(name, failed or "done", flush=True)
