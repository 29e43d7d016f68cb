"""How fast kf-tiny is alone and beside one busy core, for each way in which its threads wait for each other.

    python -m tests.benchmarks.busy_core [--repeats 5] [--threads 2] [--variants default passive ...]

Each variant is a process of its own, since the way is read when PyTorch is loaded. All of them load the bundled model first; then each
makes a chunk in turn, alone, and again in turn while a process that does nothing but count keeps one core busy. So what else happens on
the machine happens to all of them. Prints frames a second: medians, least and most, and ratios to PyTorch's default, chunk by chunk.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "OMP_PROC_BIND")
VARIANTS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def serve(threads: int | None) -> None:
    """Makes a chunk for each line that comes, and answers with its frames and the seconds it took."""
    from kf_core.cli import bench
    from kf_core.metrics.speed import machine

    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = ["--decoding", "in-turn", *([] if threads is None else ["--threads", str(threads)])]
    stream, _ = bench.stream_of(parser.parse_args(words), "fp32", is_noted=False)
    frames = stream.frames()
    for _ in range(2):
        next(frames)
    print(machine(), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        made = len(next(frames).frames)
        print(made, time.perf_counter() - began, flush=True)


@contextmanager
def processes(names: list[str], threads: int | None):
    """One that serves for each variant, ready; and which machine this is."""
    plain = {name: value for name, value in os.environ.items() if name not in WAITS}
    serving = {}
    try:
        for name in names:
            words = [sys.executable, "-m", __spec__.name, "--serve", *([] if threads is None else ["--threads", str(threads)])]
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            serving[name] = subprocess.Popen(words, cwd=ROOT, env={**plain, **VARIANTS[name]}, **pipes)
        yield serving, {process.stdout.readline().strip() for process in serving.values()}
    finally:
        for process in serving.values():
            process.kill()
            process.wait()


@contextmanager
def busy_core():
    """A process that counts, stopped until it is told to go on: yields how to tell it."""
    counting = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)  # as from another terminal
    counting.send_signal(signal.SIGSTOP)
    try:
        yield lambda is_busy: counting.send_signal(signal.SIGCONT if is_busy else signal.SIGSTOP)
    finally:
        counting.kill()
        counting.wait()


def frames_a_second(process: subprocess.Popen) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    made, seconds = process.stdout.readline().split()
    return int(made) / float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of each (default: as many as PyTorch takes)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        return serve(chosen.threads)
    found = {(name, is_busy): [] for name in chosen.variants for is_busy in (False, True)}
    with processes(chosen.variants, chosen.threads) as (serving, machines), busy_core() as keep_busy:
        for _ in range(chosen.repeats):
            for is_busy in (False, True):
                keep_busy(is_busy)
                for name, process in serving.items():
                    found[name, is_busy].append(frames_a_second(process))
    print(*sorted(machines), sep="\n")
    print("| | alone | of the default | beside a busy core | of the default |\n|---|---:|---:|---:|---:|")
    for name in chosen.variants:
        cells = []
        for is_busy in (False, True):
            rates, reference = found[name, is_busy], found[chosen.variants[0], is_busy]
            ratios = [rate / other for rate, other in zip(rates, reference, strict=True)]
            cells.append(f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) | {statistics.median(ratios):.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
