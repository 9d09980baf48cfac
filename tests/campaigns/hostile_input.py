"""Run every hostile case, including heavy ones, in a separate process, and measure CPU seconds and peak memory.

python tests/campaigns/hostile_input.py
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import test_hostile
from hostile_csvs import csv_cases
from hostile_images import image_cases
from hostile_zips import zip_cases

MEMORY_LIMIT = 2**30
CPU_LIMIT = 2.0


def measure(check, case, folder: Path) -> tuple[str, float, float]:
    """Answer, CPU seconds and peak megabytes of a check in another process, whose input is made beforehand."""
    prepared = folder / "prepared"
    if hasattr(case, "write"):
        run(lambda: case.write(prepared), folder)
        object.__setattr__(case, "write", lambda path: prepared.rename(path))
        answer, usage = run(lambda: check(case, folder), folder)
    else:
        run(lambda: prepared.write_bytes(case.make()) and None, folder)
        object.__setattr__(case, "make", prepared.read_bytes)
        answer, usage = run(lambda: check(case, folder) if check is test_hostile.check_csv else check(case), folder)
    return answer, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def run(work, folder: Path) -> tuple[str, resource.struct_rusage]:
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        try:
            (folder / "answer").write_text(work() or "")
        except BaseException as error:
            (folder / "answer").write_text(f"failed: {error!r}")
        os._exit(0)
    status, usage = os.wait4(pid, 0)[1:]
    answer = (folder / "answer").read_text() if status == 0 else f"failed: ended with status {status}"
    return answer, usage


def main() -> None:
    kinds = {
        "images": (test_hostile.check_image, list(image_cases())),
        "zips": (test_hostile.check_zip, list(zip_cases())),
        "annotations": (test_hostile.check_csv, list(csv_cases())),
    }
    rows, failed = [], []
    for kind, (check, cases) in kinds.items():
        answers, slowest, largest = Counter(), (0.0, ""), (0.0, "")
        for case in tqdm(cases, desc=kind, unit=" cases"):
            with tempfile.TemporaryDirectory() as folder:
                answer, seconds, megabytes = measure(check, case, Path(folder))
            answers[answer.partition(":")[0]] += 1
            slowest, largest = max(slowest, (seconds, case.name)), max(largest, (megabytes, case.name))
            if answer not in ("right", "refused") or seconds > CPU_LIMIT or megabytes * 2**20 > MEMORY_LIMIT:
                failed.append(f"{case.name}: {answer}, {seconds:.2f} s, {megabytes:.0f} MB")
        rows.append(
            f"| {kind} | {len(cases)} | {answers['right']} | {answers['refused']} "
            f"| {slowest[0]:.2f} s ({slowest[1]}) | {largest[0]:.0f} MB ({largest[1]}) |"
        )
    print("| | cases | correct | refused with a message | slowest, CPU time | peak memory |\n" + "| --- " * 6 + "|")
    print(*rows, sep="\n")
    print(f"{len(failed)} outside the rules", *failed, sep="\n  ")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
