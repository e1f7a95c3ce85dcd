"""Render the measurements and the goals as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from growth import EXPONENT, SPREAD, exponent

__all__ = ["Entry", "Verdict", "render", "table", "verdicts"]

MIB = 2**20
READING = "reading the inputs"


@dataclass
class Entry:
    """A measured row: seconds per call and bytes, for ours and each peer."""

    framework: str
    work: str
    seconds: dict[str, float]
    goals: list[dict[str, Any]]
    growth: int
    row: int  # its number in its group
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    def extra(self, way: str) -> float:
        """Return MiB in addition to the results."""
        return (self.memory[way]["peak"] - self.memory[way]["returned"]) / MIB

    def ratio(self, peer: str) -> float:
        """Return our peak memory / the peer's, which is at least one page, because smaller changes are not measured."""
        return self.memory["ours"]["peak"] / max(self.memory[peer]["peak"], 4096)

    def measured(self, goal: dict[str, Any]) -> float | None:
        """Return the value that a goal limits, or None if it was not measured."""
        peer = goal["peer"]
        if goal["of"] != "memory":
            ours, other = self.seconds["ours"], self.seconds[peer]
            return ours / other if goal["of"] == "time" else (ours - other) * 1e6
        if not {"ours", peer or "ours"} <= set(self.memory):
            return None
        return self.ratio(peer) if peer else self.extra("ours")


@dataclass(frozen=True)
class Verdict:
    """A goal, and the worst result of the rows that share it."""

    goal: str
    limit: str
    measured: str
    met: bool


def verdicts(entries: Sequence[Entry]) -> list[Verdict]:
    """Return a verdict for each goal. All rows that share a goal must meet it."""
    found: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
    for entry in entries:
        for goal in entry.goals:
            value = entry.measured(goal)
            if value is not None:
                found.setdefault(tuple(goal.values()), []).append((value, entry.work))
    shared = [_verdict(*key, values) for key, values in found.items()]
    return [*shared, *(each for steps in _series(entries) for each in _growth(steps))]


def _verdict(name: str, limit: float, peer: str, of: str, values: list[tuple[float, str]]) -> Verdict:
    within = sum(value <= limit for value, _ in values)
    worst, work = max(values)
    if of == "overhead":
        rule, measured = f"{limit:g} us more than {peer}", f"{worst:.1f} us"
    elif of == "time":
        rule, measured = f"{limit:g} of the time of {peer}", f"{worst:.3g}"
    elif peer:
        rule, measured = f"{limit:g} of the extra peak memory of {peer}", f"{worst:.3g}"
    else:
        rule, measured = f"{limit:g} MiB of extra peak memory beyond what is returned", f"{worst:.0f} MiB"
    if len(values) > 1:
        measured += f" at worst ({work}); {within} of {len(values)} within"
    return Verdict(name, f"<= {rule}", measured, within == len(values))


def _series(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return the steps of each framework's series."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.growth:
            found.setdefault(entry.framework, []).append(entry)
    return [steps for steps in found.values() if len(steps) > 1]


def _growth(steps: list[Entry]) -> Iterable[Verdict]:
    sizes = [step.growth for step in steps]
    name = f"KL forward, {steps[0].framework}, from {sizes[0]} to {sizes[-1]} rows"
    power = exponent(sizes, [step.seconds["ours"] for step in steps])
    yield Verdict(name, f"<= {EXPONENT:g}, the growth exponent of time", f"{power:.2f}", power <= EXPONENT)
    if all("ours" in step.memory for step in steps):
        extras = [step.extra("ours") for step in steps]
        spread = max(extras) - min(extras)
        yield Verdict(name, f"<= {SPREAD} MiB, the range of the extra memory", f"{spread:.0f} MiB", spread <= SPREAD)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _goals(entries: Sequence[Entry]) -> list[str]:
    rows = [(v.goal, v.limit, v.measured, "met" if v.met else "**missed**") for v in verdicts(entries)]
    return table(("goal", "limit", "measured", ""), rows)


def _times(entries: Sequence[Entry]) -> list[str]:
    rows = []
    for entry in entries:
        ours = entry.seconds["ours"]
        reading = f"{ours / entry.seconds[READING]:.3g}" if READING in entry.seconds else ""
        peers = {way: s for way, s in entry.seconds.items() if way not in ("ours", READING)}
        for i, (peer, seconds) in enumerate(peers.items()):
            first = (entry.framework, entry.work, _time(ours), reading) if i == 0 else ("", "", "", "")
            rows.append((*first, peer, _time(seconds), f"{ours / seconds:.3g}"))
    return table(("framework", "work", "ours", "ours / reading the inputs", "peer", "its time", "ours / peer"), rows)


def _memory(entries: Sequence[Entry]) -> list[str]:
    rows = []
    for entry in entries:
        for i, (way, found) in enumerate(entry.memory.items()):
            first = (entry.framework, entry.work) if i == 0 else ("", "")
            shown = f"{found['peak'] / MIB:.1f}", f"{found['returned'] / MIB:.1f}", f"{entry.extra(way):.1f}"
            ratio = f"{entry.ratio(way):.3g}" if way != "ours" and "ours" in entry.memory else ""
            rows.append((*first, way, *shown, ratio))
    return table(("framework", "work", "way", "extra peak MiB", "returned", "beyond that", "ours / peer"), rows)


def _steps(entries: Sequence[Entry]) -> list[str]:
    rows = []
    for steps in _series(entries):
        for step in steps:
            (peer,) = set(step.seconds) - {"ours", READING}
            shown = [step.framework, str(step.growth)]
            for way in ("ours", peer):
                memory = f"{step.extra(way):.1f}" if way in step.memory else ""
                shown += [f"{step.seconds[way] / step.growth * 1e6:.1f}", memory]
            rows.append([*shown, peer])
    return table(("framework", "rows", "ours, us a row", "extra MiB", "peer, us a row", "extra MiB", "peer"), rows)


def render(entries: Sequence[Entry], facts: Sequence[str], failures: Sequence[str]) -> str:
    """Return the text of RESULTS.md."""
    single = [entry for entry in entries if not entry.growth]
    lines = [
        "# Benchmarks",
        "",
        "Written by `nox -s benchmarks`, do not edit. Our functions and the alternatives (peers) ran in turns in one",
        "process. Times are the best of all rounds, and ratios compare these.",
        "",
        *[f"- {fact}" for fact in facts],
        "",
        "## Goals",
        "",
        *_goals(entries),
        "",
        "## Times",
        "",
        '"Reading the inputs" is the framework\'s own sum over each array.',
        "",
        *_times(single),
        "",
        "## Memory",
        "",
        "MiB above the level just before the call, each measured in its own process: with tracemalloc for NumPy, with",
        "PyTorch's allocator on CUDA, and otherwise with the process's high-water mark. Results include gradients.",
        "",
        *_memory(single),
        "",
        "## Growth",
        "",
        "KL forward with a growing number of rows.",
        "",
        *_steps(entries),
    ]
    if failures:
        lines += ["", "## Did not run", "", *[f"- {failure}" for failure in failures]]
    return "\n".join(lines) + "\n"
