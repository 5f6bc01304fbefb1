"""Explanation of algorithms: idea, source, worked example and advice; for one alone, or for several side by side."""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ratelab.algorithms import build_policy, traits_of
from ratelab.algorithms.plugins import attribute_errors
from ratelab.learn.questions import ADVICE, Advice
from ratelab.learn.source import parameters, teaching_source
from ratelab.learn.verdict import decision_text
from ratelab.learn.worked_example import Lesson, LessonRequest, WorkedStep, build_lesson, work_out_lesson
from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.prove import PROVED, Proof, prove
from ratelab.quota import UNITS, Quota, about, format_duration
from ratelab.report.catalogue import AlgorithmEntry, describe_algorithm
from ratelab.report.numbers import pluralize

MAX_SEARCHED_BURST = 10_000
"""The largest burst for which a greedy client is simulated; a larger one would take seconds."""

MAX_STATE_COLUMNS = 18
LABEL_COLUMNS = 13
MIN_ALGORITHM_COLUMNS = 22


class Explanation(NamedTuple):
    """The texts and the worked example of one algorithm."""

    entry: AlgorithmEntry
    idea: str
    """The second paragraph of its docstring."""
    reference: str
    """The paragraphs after it, which cite where the algorithm is described."""
    at_most: str
    """Its bound for any window, and the share of it that a greedy client gets, if that is less."""
    windows: str
    """When its windows end."""
    advice: Advice
    steps: list[WorkedStep]
    proved: str
    """The theorems that are proved for all times, if that was asked for."""


def render_explanation(algorithm: type[Algorithm], quota: Quota, with_proof: bool = False) -> RenderableType:
    """Explain one algorithm under `quota`; leave out the parts that it lacks.

    Raises `InputError` if the algorithm cannot grant `quota`, or `with_proof`, cannot be translated for one.
    """
    lesson = build_lesson(quota)
    explanation = _explain(algorithm, quota, lesson, with_proof)
    code = teaching_source(algorithm)
    return Group(
        Text(f"{explanation.entry.algorithm} at {quota}", style="bold"),
        *_paragraphs(explanation.entry.meaning, explanation.idea, explanation.reference),
        *([_heading("Source"), _highlight(code)] if code else []),
        _heading(f"Worked example, in {lesson.unit}"),
        Text(_list_parameters(algorithm, lesson)),
        *_render_steps(explanation, lesson),
        _heading("Key facts"),
        _facts([explanation]),
    )


def render_side_by_side(
    algorithms: Sequence[type[Algorithm]], quota: Quota, width: int, with_proof: bool = False
) -> RenderableType:
    """Explain several algorithms under one quota in columns; those that do not fit in `width` follow below."""
    lesson = build_lesson(quota)
    explanations = [_explain(algorithm, quota, lesson, with_proof) for algorithm in algorithms]
    rows = _split_evenly(explanations, max(1, (width - LABEL_COLUMNS) // MIN_ALGORITHM_COLUMNS))
    return Group(
        Text(f"{', '.join(one.entry.algorithm for one in explanations)} at {quota}\n", style="bold"),
        *_separate(map(_facts, rows)),
        _heading("Decisions on the same requests"),
        *_separate(_decisions(row, explanations, lesson) for row in rows),
    )


def count_greedy_admissions(algorithm: Algorithm, quota: Quota) -> int | None:
    """Count the requests of cost 1 that a greedy client gets admitted within a window of `quota`; None if unknown.

    The client starts at the last instant before a window boundary and retries as early as it may, until the end of the
    window that its first request begins. The count is unknown for a burst above `MAX_SEARCHED_BURST`, for more than one
    request per nanosecond, and for an algorithm with too many short waits.
    """
    if quota.burst > MAX_SEARCHED_BURST or quota.limit > quota.period:
        return None
    now, end = quota.window - 1, 2 * quota.window - 2
    state, departures = algorithm.start(now), list[int]()
    for _ in range(5 * quota.burst):
        decision = Decision(*algorithm.step(state, now, 1))
        if decision.allowed:
            departures.append(now + decision.delay_ns)
        elif now < end:
            now = min(now + max(1, decision.retry_after_ns), end)
        else:
            ends = (bisect_left(departures, at + quota.window) for at in departures)
            return max((after - before for before, after in enumerate(ends)), default=0)
    return None


# --- the texts of an algorithm


def _explain(algorithm: type[Algorithm], quota: Quota, lesson: Lesson, with_proof: bool) -> Explanation:
    _, idea, *reference = [*_plain_paragraphs(inspect.getdoc(algorithm) or ""), "", ""]
    with attribute_errors(algorithm):
        at_most = _at_most(algorithm, quota)
        steps = work_out_lesson(build_policy(algorithm, lesson.quota).algorithm, lesson.requests)
    advice = Advice(*(_plain_paragraphs(text)[0] for text in ADVICE.get(algorithm, ("", ""))))
    entry = describe_algorithm(algorithm, quota)
    windows = _windows(algorithm, quota)
    proved = _list_proved(prove(algorithm, quota)) if with_proof else ""
    return Explanation(entry, idea, "\n".join(reference).strip(), at_most, windows, advice, steps, proved)


def _plain_paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring without backquotes, each on one line."""
    return [" ".join(paragraph.split()).replace("`", "") for paragraph in text.split("\n\n")]


def _list_proved(proof: Proof) -> str:
    """List the theorems that are proved, and name the command that shows the others."""
    names = [finding.name for finding in proof.findings if finding.status == PROVED]
    text = (
        f"for all times, states and costs{f', {proof.scope}' if proof.scope else ''}: {', '.join(names) or 'nothing'}"
    )
    others = [f"{finding.name} is {finding.status}" for finding in proof.findings if finding.status != PROVED]
    return "; ".join([text, *others, *(["see ratelab prove"] if others else [])])


def _at_most(algorithm: type[Algorithm], quota: Quota) -> str:
    """Format the algorithm's bound, its value under `quota`, and a greedy client's admissions if they are fewer."""
    entry = describe_algorithm(algorithm, quota)
    at_most = traits_of(algorithm).at_most
    if at_most is None:
        return entry.at_most
    bound = at_most[0] * quota.burst + at_most[1]
    admitted = count_greedy_admissions(algorithm.from_quota(quota), quota)
    less = "" if admitted in (None, bound) else f"; a greedy client gets {admitted:,} with requests of cost 1"
    return f"{entry.at_most} in any {about(quota.window)}: {bound:,} where the quota grants {quota.burst:,}{less}"


def _windows(algorithm: type[Algorithm], quota: Quota) -> str:
    """Format when the windows of an algorithm end, if they are aligned."""
    if not traits_of(algorithm).aligned:
        return ""
    times = {UNITS["day"]: "at midnight UTC", 7 * UNITS["day"]: "on Thursdays at 00:00 UTC"}  # 1970-01-01 was one
    time = times.get(quota.window, "counted from 1970-01-01 00:00 UTC")
    return f"one ends every {about(quota.window)}, {time}"


def _list_parameters(algorithm: type[Algorithm], lesson: Lesson) -> str:
    values = [f"{name} {value}" for name, value in parameters(algorithm.from_quota(lesson.quota)).items()]
    return f"Times are in {lesson.unit}{': ' if values else ''}{', '.join(values)}."


def _facts(explanations: Sequence[Explanation]) -> Table:
    """Return a column of facts for each algorithm; for a single one, without its meaning and idea."""
    several = len(explanations) > 1
    columns = _full_width_table(2, header=several)
    columns.add_column("", no_wrap=True, style="dim")
    for one in explanations:
        columns.add_column(one.entry.algorithm, ratio=1)
    rows: list[tuple[str, list[str]]] = [
        ("meaning", [one.entry.meaning for one in explanations] if several else []),
        ("idea", [one.idea for one in explanations] if several else []),
        ("at most", [one.at_most for one in explanations]),
        ("windows", [one.windows or "not aligned" if several else one.windows for one in explanations]),
        ("key state", [_state_size(one.entry) for one in explanations]),
        ("proved", [one.proved for one in explanations]),
        ("choose when", [one.advice.choose_when for one in explanations]),
        ("say aloud", [one.advice.say_aloud for one in explanations]),
    ]
    for label, texts in rows:
        if any(texts):
            columns.add_row(label, *(Text(text or "not stated") for text in texts))
    return columns


def _state_size(entry: AlgorithmEntry) -> str:
    size = entry.state_bytes_per_key or 0
    return f"{pluralize(size // 8, 'number')}, {size:,} bytes: {entry.remembers}"


# --- the worked example


def _render_steps(explanation: Explanation, lesson: Lesson) -> Iterator[RenderableType]:
    """Yield each request, and below it the state before it, the arithmetic and the decision."""
    states = [_state_lines(explanation.entry.remembers, step.before) for step in explanation.steps]
    decisions = [_decision(step, lesson) for step in explanation.steps]
    state_width = min(MAX_STATE_COLUMNS, max(len(line) for lines in states for line in lines))
    decision_width = max(len(line) for text in decisions for line in text.plain.splitlines())
    for request, step, state, decision in zip(lesson.requests, explanation.steps, states, decisions, strict=True):
        yield Padding(_describe(request, lesson), (1, 0, 0, 0))
        columns = Table.grid(padding=(0, 2), expand=True)
        columns.add_column(width=state_width)
        columns.add_column(ratio=1)
        columns.add_column(width=decision_width)
        columns.add_row(Text("\n".join(state)), Text("\n".join(step.lines) or "-"), decision)
        yield Padding(columns, (0, 0, 0, 2))


def _describe(request: LessonRequest, lesson: Lesson) -> Text:
    time_and_cost = f"{format_duration(lesson.nanoseconds(request.at))}, cost {request.cost}"
    return Text.assemble((time_and_cost, "bold"), f": {request.description}. {request.question}")


def _state_lines(remembers: str, state: list[int]) -> list[str]:
    """Name the integers of a state, one on a line; the last name stands for all the rest."""
    names = remembers.split(", ") if remembers != "not stated" else [""]
    lines = [f"{name} {value}" for name, value in zip(names[:-1], state, strict=False)]
    rest = state[len(names) - 1 :]
    numbers = " ".join(map(str, rest if len(rest) <= 6 else [*rest[:2], "..", *rest[-2:]]))
    name = names[-1].rpartition(" ")[2] if len(rest) > 1 else names[-1]  # "a ring of burst + 1 times" becomes "times"
    return [*lines, f"{name} {numbers}".strip()]


def _decision(step: WorkedStep, lesson: Lesson) -> Text:
    """Format a decision of the lesson, with its times converted to nanoseconds."""
    allowed, remaining, *times = step.decision.row
    retry, reset, delay = (min(NEVER, lesson.nanoseconds(time)) for time in times)
    decision = Decision(allowed, remaining, retry, reset, delay)
    return decision_text(decision, format_duration)


def _decisions(row: Sequence[Explanation], explanations: Sequence[Explanation], lesson: Lesson) -> Table:
    """Return the decisions of the algorithms in a row; requests that `explanations` decide differently are bold."""
    columns = _full_width_table(2)
    for name in ("time", "cost"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("request", ratio=1)
    for one in row:
        columns.add_column(one.entry.algorithm, ratio=1)
    for number, request in enumerate(lesson.requests):
        decisions = [_decision(one.steps[number], lesson) for one in row]
        differ = len({one.steps[number].decision.allowed for one in explanations}) > 1
        at = format_duration(lesson.nanoseconds(request.at))
        columns.add_row(at, str(request.cost), request.description, *decisions, style="bold" if differ else None)
    return columns


# --- parts of a page


def _heading(text: str) -> RenderableType:
    return Padding(Rule(Text(text, style="bold"), align="left", characters="-", style="dim"), (1, 0, 1, 0))


def _paragraphs(*texts: str) -> Iterator[RenderableType]:
    yield from (Padding(Text(text), (1, 0, 0, 0)) for text in texts if text)


def _highlight(code: str) -> Syntax:
    return Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True, line_numbers=True)


def _full_width_table(gap: int, header: bool = True) -> Table:
    return Table(box=None, padding=(0, gap, 1, 0), pad_edge=False, header_style="bold", expand=True, show_header=header)


def _split_evenly(explanations: Sequence[Explanation], max_columns: int) -> list[Sequence[Explanation]]:
    """Split into as few rows as possible, of about equal length."""
    each = -(-len(explanations) // -(-len(explanations) // max_columns))
    return [explanations[start : start + each] for start in range(0, len(explanations), each)]


def _separate(tables: Iterable[Table]) -> Iterator[RenderableType]:
    """Yield the tables with an empty line between them."""
    for number, one in enumerate(tables):
        if number:
            yield Text()
        yield one
