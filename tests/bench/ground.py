"""The ground of the benchmarks: a directory that goes away, processes that end, an anchor, meters, tables.

Imported by the scripts beside it; needs nothing but Python 3.11 and Linux.
"""

import argparse
import datetime
import hashlib
import json
import mmap
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GB = 1e9
TICKS = os.sysconf("SC_CLK_TCK")
SLACK = 256 << 20
HELD_OF = 16
# Servers live in sbin, which is not in everybody's PATH.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def arguments(doc, runs=5):
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=runs, help=f"runs of each, interleaved [{runs}]")
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target/release", metavar="DIR")
    parser.add_argument("--directory", default="/dev/shm", help="where files are kept meanwhile [/dev/shm]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="writes every single run there, too")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="draws an SVG there")
    parser.add_argument("--from", type=pathlib.Path, metavar="FILE", dest="from_json",
                        help="measures nothing: table and plot of what --json has written")
    return parser


def warm_up(size):
    """Makes as much memory free and quick to have, until the next call.

    New pages are slow on a virtual machine that returns free ones to its host: 0.4 GB/s instead of 2.5. It does that
    within two seconds, but only with blocks of 128 KiB (the kernel's free page reporting). So all pages are touched,
    and freed but for every sixteenth, which keeps the blocks apart.
    """
    global ballast
    if ballast:
        ballast.close()
    size -= size % (HELD_OF * mmap.PAGESIZE)
    ballast = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ballast.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, size, mmap.PAGESIZE):
        ballast[offset] = 1
    for offset in range(0, size, HELD_OF * mmap.PAGESIZE):
        ballast.madvise(mmap.MADV_DONTNEED, offset, (HELD_OF - 1) * mmap.PAGESIZE)


ballast = None


def random_file(path, size):
    """Makes a file of random bytes; its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for offset in range(0, size, 16 << 20):
            block = os.urandom(min(16 << 20, size - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def file_hash(path):
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_port():
    """A port of loopback where nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, limit=10):
    """Waits until somebody listens on a port of loopback."""
    deadline = time.monotonic() + limit
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody listens on port {port}")
        time.sleep(0.02)


class Place:
    """A directory for one benchmark, and the processes that were started in it; both go on exit."""

    def __init__(self, parent):
        self.parent = parent
        self.processes = []

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="anchorage-bench-", dir=self.parent))
        # What `kill` sends, too, must clean up.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
        return self

    def __truediv__(self, name):
        return self.path / name

    def spawn(self, words, **options):
        """Starts a process that does not outlive this place."""
        if "stderr" not in options:
            name = pathlib.Path(str(words[0])).name
            options["stderr"] = open(self.path / f"{name}-{len(self.processes)}.err", "wb")
        process = subprocess.Popen([str(word) for word in words], **options)
        self.processes.append(process)
        return process

    def __exit__(self, *_):
        for process in reversed(self.processes):
            end(process)
        shutil.rmtree(self.path, ignore_errors=True)


def end(process, limit=10):
    """Ends a process and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.wait()


def tree(pid):
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def cpu(pid):
    """CPU seconds of a process and all its descendants, the dead ones included, so far."""
    total = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total / TICKS


def status(pid):
    """Peak and anonymous memory of a process in bytes, or None when it is gone: VmHWM, RssAnon."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return {key: int(lines[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon")}
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None


class Memory:
    """Peaks of some processes while it is entered. VmHWM includes pages of files; RssAnon does not."""

    def __init__(self, pids, every=0.01):
        self.every = every
        self.peaks = {pid: {"VmHWM": 0, "RssAnon": 0} for pid in pids}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        for pid in self.peaks:
            try:
                pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew
            except OSError:
                pass
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(self.every):
            self.look()

    def look(self):
        for pid, peak in self.peaks.items():
            for key, value in (status(pid) or {}).items():
                peak[key] = max(peak[key], value)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.look()


def measure(words, servers=(), limit=600, largest_of=None, **options):
    """Runs a command to its end. Wall and CPU seconds, those of the servers' trees, and peaks of memory: its own, and
    that of the largest process of the servers, or of those processes of theirs that are named."""
    before = sum(cpu(server) for server in servers)
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in words], **options)
    watched = [pid for server in servers for pid in tree(server)]
    with Memory([process.pid, *watched]) as memory:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        # Read while it runs: the output may be longer than a pipe.
        out = process.stdout.read() if process.stdout else b""
        _, exit_status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(exit_status)
        timer.cancel()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))} failed with {process.returncode}")
    if servers:
        time.sleep(0.05)
    own = memory.peaks.pop(process.pid)
    others = [peak for pid, peak in memory.peaks.items() if largest_of is None or pid in largest_of]
    return {
        "wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "out": out,
        "server_cpu": sum(cpu(server) for server in servers) - before,
        "rss": own["VmHWM"], "anon": own["RssAnon"],
        "server_rss": max((peak["VmHWM"] for peak in others), default=0),
        "server_anon": max((peak["RssAnon"] for peak in others), default=0),
    }


class Anchor:
    """One anchor in a place, with a config that names it alone."""

    def __init__(self, place, binaries, name="anchor", heartbeat_ms=5000):
        self.binaries, self.place = binaries, place
        self.home = place / name
        self.config = place / f"{name}.json"
        self.address = f"127.0.0.1:{free_port()}"
        anchors = [{"id": 1, "address": self.address}]
        self.config.write_text(json.dumps({"anchors": anchors, "heartbeat_ms": heartbeat_ms}))
        self.process = place.spawn(
            [binaries / "anchor", "serve", 1, "--home", self.home, "--config", self.config, "--json"],
            stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the anchor does not start")
        self.key = json.loads(line)["key"]
        self.pid = self.process.pid

    def status(self):
        """What `anchor status` says."""
        words = [self.binaries / "anchor", "status", "1", "--home", self.home, "--config", self.config, "--json"]
        return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)

    def workers(self):
        """Task and pid of every process; the second of a task is called so."""
        found = {}
        for process in self.status()["processes"]:
            same = sum(task.startswith(process["task"]) for task in found)
            found[f"{process['task']} {same}" if same else process["task"]] = process["pid"]
        return found

    def peer(self, home, *words):
        """The words of a `peer` command with a home and this anchor."""
        return [self.binaries / "peer", *words, "--home", self.place / home, "--config", self.config]

    def publish(self, path, *words, home="publisher"):
        """Publishes a file with upload; the last event."""
        command = [str(word) for word in self.peer(home, "publish", path, "--json", *words)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
        return json.loads(lines[-1])


def events(process):
    """The events of a process with --json, each with the time when it came."""
    for line in process.stdout:
        yield time.monotonic(), json.loads(line)


def installed(program, package):
    """None if a program is there; otherwise what to do about it."""
    return None if shutil.which(program) else f"not installed (apt-get install {package})"


def version(*words):
    """The first line that a program says of its version."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
        return done.stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "-"


def setting():
    """Where and when this was measured, and with which Anchorage."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} × {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "revision": version("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "rustc": version("rustc", "--version"),
    }


def parameters(**named):
    """Prints the parameters of a benchmark, and where it runs; gives them back."""
    named = setting() | {key: str(value) for key, value in named.items()}
    print_parameters(named)
    return named


def print_parameters(named):
    """Prints parameters."""
    for key, value in named.items():
        print(f"{key.replace('_', ' ')}: {value}")
    print(flush=True)


def medians(runs):
    """The median of every number of some runs."""
    return {key: statistics.median(run[key] for run in runs)
            for key, value in runs[0].items() if isinstance(value, int | float)}


def spread(runs, key, digits=2):
    """Median, least and most of a number of some runs."""
    values = [run[key] for run in runs]
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def table(head, rows):
    """Prints a table in Markdown: the first column to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in [head, *rows]]
    # A row with fewer cells than the head is a remark, which makes no column wider but the first.
    whole = [row for row in texts if len(row) == len(head)]
    widths = [max(3, *(len(row[at]) for row in whole)) for at in range(len(head))]
    widths[0] = max(3, *(len(row[0]) for row in texts))
    for number, row in enumerate(texts):
        cells = [row[0].ljust(widths[0])]
        cells += row[1:] if len(row) < len(head) else [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            print(f"| {'-' * widths[0]} | {' | '.join('-' * (width - 1) + ':' for width in widths[1:])} |")
    print(flush=True)


def mib(size):
    """Bytes as MiB."""
    return f"{size / (1 << 20):.1f}"


def write_json(path, named, **parts):
    """Writes parameters and every single run, if a file was asked for."""
    if path:
        path.write_text(json.dumps({"parameters": named, **parts}, indent=1, default=str) + "\n")


def kept(path, *parts):
    """Parameters, and the parts that were asked for, of what `write_json` has written."""
    found = json.loads(path.read_text())
    return found["parameters"], *(found[part] for part in parts)
