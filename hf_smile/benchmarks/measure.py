"""Time several ways of doing the same thing against each other, and write the result as JSON, table and bar chart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tqdm.auto import tqdm

from hf_smile.utils.figures import new_figure, save_figure


@dataclass(frozen=True)
class Row:
    """The speed of one contender.

    Attributes:
        images_per_second: median over the rounds.
        slowest, fastest: images per second in the slowest and the fastest round.
        cpu_ms_per_image: user and system time of all threads, which other programs hardly affect.
        peak_memory_mb: peak memory in 10^6 bytes.
        rounds: images per second in each round.
    """

    images_per_second: float
    slowest: float
    fastest: float
    cpu_ms_per_image: float | None = None
    peak_memory_mb: float | None = None
    rounds: tuple[float, ...] = ()

    def times_as_fast_as(self, other: Row) -> float:
        """Median of the ratio over the rounds. In each round the machine is in much the same state for both."""
        return median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


_MORE = {"cpu_ms_per_image": "CPU ms per image", "peak_memory_mb": "peak memory, MB"}


def alternate(contenders: Mapping[str, Callable[[], int]], rounds: int, desc: str) -> dict[str, Row]:
    """Run every contender once per round, so that other load on the machine affects all of them equally.

    Args:
        contenders: functions to run, by name; each returns the number of images it processed.
        rounds: number of rounds. One more round at the start, to warm up caches and thread pools, is not counted.
        desc: text of the progress bar.

    >>> alternate({"nothing": lambda: 1}, rounds=3, desc="Nothing")["nothing"].images_per_second > 0
    True
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    with tqdm(total=(rounds + 1) * len(contenders), desc=desc, unit=" runs") as bar:
        for round_number in range(rounds + 1):
            for name, run in contenders.items():
                start = time.perf_counter()
                images = run()
                if round_number:
                    speeds[name].append(images / (time.perf_counter() - start))
                bar.update()
    return {
        name: Row(median(values), min(values), max(values), rounds=tuple(values)) for name, values in speeds.items()
    }


def write_results(rows: Mapping[str, Row], ratios: Mapping[str, float], path: str | Path, title: str) -> str:
    """Write `path` (JSON, `{"rows": [...], "ratios": {...}}`), a Markdown table and a bar chart to the same folder.

    Args:
        rows: results by name.
        ratios: speed ratios: `"a/b"` is the speed of a divided by that of b.
        path: file name that ends in `.json`; the other two files have the same stem.
        title: title of the table and the chart.

    Returns:
        The Markdown table.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [{"name": name} | asdict(row) for name, row in rows.items()]
    content = {"title": title, "rows": named, "ratios": dict(ratios)}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [title, "", "| | times as fast |", "| --- | ---: |"]
    lines += [f"| {name.replace('/', ' / ')} | {ratio:.2f} |" for name, ratio in ratios.items()]
    measured = [name for name in _MORE if all(getattr(row, name) is not None for row in rows.values())]
    titles = ["", "images/s", "slowest and fastest round", *(_MORE[name] for name in measured)]
    lines += ["", f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for name, row in rows.items():
        cells = [name, f"{row.images_per_second:.1f}", f"{row.slowest:.1f} to {row.fastest:.1f}"]
        cells += [f"{getattr(row, more):,.1f}" for more in measured]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    _plot(rows, path.with_suffix(".png"), title)
    return table


def _plot(rows: Mapping[str, Row], path: Path, title: str) -> None:
    figure = new_figure(7, 1.2 + 0.4 * len(rows))
    axis = figure.subplots()
    values = [row.images_per_second for row in rows.values()]
    below = [row.images_per_second - row.slowest for row in rows.values()]
    above = [row.fastest - row.images_per_second for row in rows.values()]
    bars = axis.barh(list(rows), values, xerr=[below, above], color="#0072B2", ecolor="#555555", capsize=3)
    axis.bar_label(bars, fmt="%.1f", padding=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel("images per second, median of the rounds; lines from the slowest to the fastest")
    axis.set_title(title, fontsize=9)
    save_figure(figure, path)
