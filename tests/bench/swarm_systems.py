"""What `tests/bench/swarm` compares: each distributes `source/f.bin` from the origins to the getters of a network.

Of every node of every system the same is asked: a process that says `ready`, waits for a line on its stdin, then does
its work, says when its file is whole, and goes on serving until it is killed. Where a program cannot wait by itself, a
shell waits for it and then becomes it. So all start at the same moment, whatever it costs to enter a namespace.
"""

import json
import pathlib
import shutil
import subprocess
import threading
import time

import torrents
from ground import cpu, installed, version
from namespaces import SWITCH_ADDRESS
from swarm_scenarios import SCENARIOS

HERE = pathlib.Path(__file__).resolve().parent
SYSTEM_PYTHON = "/usr/bin/python3"
PORT = 6881
TRACKER_PORT = 6969
NAME = "f.bin"
# Becomes the program after it once a line has come.
WAIT = ["/bin/sh", "-c", 'echo ready; read -r _; exec "$@"', "wait"]


class Node:
    """A process of a system on a host; knows when its file was whole."""

    def __init__(self, network, number, words, log, is_done):
        self.number, self.is_done = number, is_done
        self.started = self.finished = self.fault = None
        self.cpu_before = self.cpu_at_end = None
        self.log = log
        self.ready = threading.Event()
        with open(log, "wb") as err:
            self.process = network.spawn(number, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            if not self.ready.is_set():
                self.ready.set()
            elif self.finished is None and self.is_done(line):
                self.finished = time.monotonic()

    def wait_until_ready(self, limit=20):
        if not self.ready.wait(limit):
            raise RuntimeError(f"node {self.number} does not start: {self.last_words()}")
        self.cpu_before = cpu(self.process.pid)

    def go(self):
        self.started = time.monotonic()
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def last_words(self):
        """The end of what it said on stderr."""
        return self.log.read_text(errors="replace")[-400:].strip()

    def used(self):
        """CPU seconds since it was ready; of a dead one, what was noted before."""
        if self.cpu_at_end is None:
            return cpu(self.process.pid) - self.cpu_before
        return self.cpu_at_end - self.cpu_before


class System:
    """Something that distributes a file to `count` getters. `place` is the directory of one run."""

    name = ""
    # Scenarios that make no sense for it.
    cannot = frozenset()

    def __init__(self, network, place, args, count):
        self.network, self.place, self.args, self.count = network, place, args, count
        self.source = place / "source" / NAME

    @classmethod
    def missing(cls, _args):
        """None, or what to install."""

    @classmethod
    def settings(cls, _args):
        """What is printed of version and settings."""
        return ""

    def prepare(self, origins):
        """Starts the origins, so that the file can be had from them; their processes."""
        raise NotImplementedError

    def words(self, number):
        """The command of a getter; it waits by itself, or starts with WAIT."""
        raise NotImplementedError

    def is_done(self, line):
        """Whether a line of a getter's stdout says that the file is whole."""
        return line == b"done\n"

    def getter(self, number):
        """A getter that waits for its start."""
        self.folder(number).mkdir()
        return Node(self.network, number, self.words(number), self.place / f"getter-{number}.err", self.is_done)

    def folder(self, number):
        """Where a getter puts its file."""
        return self.place / f"out-{number}"

    def file(self, number):
        """A getter's file."""
        return self.folder(number) / NAME

    def close(self):
        """Ends what does not run on a host."""


class Anchorage(System):
    """Anchors that have the file, and `peer get --serve`."""

    name = "Anchorage"

    @classmethod
    def settings(cls, args):
        return f"chunks {args.chunk_size or 'by size'}; {version(str(args.binaries / 'peer'), '--version')}"

    def prepare(self, origins):
        self.config = self.place / "config.json"
        self.config.write_text(json.dumps({"anchors": [
            {"id": number + 1, "address": f"{self.network.address(host)}:7001"}
            for number, host in enumerate(origins)]}))
        anchors = []
        for number, host in enumerate(origins):
            words = [self.args.binaries / "anchor", "--home", self.place / f"anchor-{number + 1}",
                     "--config", self.config, "--json", "serve", number + 1]
            with open(self.place / f"anchor-{number + 1}.err", "wb") as err:
                anchors.append(self.network.spawn(host, words, stdout=subprocess.PIPE, stderr=err))
            if not anchors[-1].stdout.readline():
                raise RuntimeError("the anchor does not start")
        words = [self.args.binaries / "peer", "--home", self.place / "publisher", "--config", self.config,
                 "publish", self.source]
        if self.args.chunk_size:
            words += ["--chunk-size", self.args.chunk_size]
        if self.network.spawn(origins[0], words, stdout=subprocess.DEVNULL).wait(120) != 0:
            raise RuntimeError("publishing failed")
        return anchors

    def words(self, number):
        return [*WAIT, self.args.binaries / "peer", "--home", self.place / f"home-{number}", "--config", self.config,
                "--json", "get", NAME, "-o", self.file(number), "--serve"]

    def is_done(self, line):
        # Not every line of progress is worth decoding.
        return b'"done"' in line and json.loads(line)["event"] == "done"


class Chain(System):
    """A bare relay chain in Python: every getter passes on what it gets, at once, to the next one."""

    name = "bare relay chain"
    cannot = frozenset(SCENARIOS) - {"plain"}

    @classmethod
    def settings(cls, _args):
        return "plaintext, no chunks, no checks, no recovery; 256 KiB at a time"

    def prepare(self, origins):
        words = self.origin_words()
        self.origin = Node(self.network, origins[0], words, self.place / "chain.err", self.is_done)
        self.origin.wait_until_ready()
        self.origin.go()
        return [self.origin.process]

    def origin_words(self):
        """The command of the first node."""
        return [HERE / "chain_node", "send", self.source, PORT]

    def words(self, number):
        verb = "last" if number == self.count else "relay"
        return [HERE / "chain_node", verb, self.file(number), PORT, self.network.address(number - 1),
                self.source.stat().st_size]


class VerifiedChain(Chain):
    """The same in Rust, encrypted, hashed by chunk and as a whole: what is left of a swarm without its sharing."""

    name = "relay chain, encrypted and verified"

    @classmethod
    def settings(cls, _args):
        return "TLS 1.3, SHA-256, chunks of 32 KiB, pwrite; nobody chooses, no recovery"

    def origin_words(self):
        return [*self.relay(self.source), "--listen", f"0.0.0.0:{PORT}"]

    def words(self, number):
        words = [*self.relay(self.file(number)), "--from", f"{self.network.address(number - 1)}:{PORT}"]
        return words if number == self.count else [*words, "--listen", f"0.0.0.0:{PORT}"]

    def relay(self, file):
        """What all nodes have in common."""
        return [self.args.binaries / "yardstick", "relay", "--size", self.source.stat().st_size, file]


class VerifiedMesh(VerifiedChain):
    """A connection from each to each, and nobody chooses or says anything: what is left of a swarm without its talk."""

    name = "mesh, encrypted and verified"

    def origin_words(self):
        return self.mesh(self.source, self.count)

    def words(self, number):
        others = [self.at(other) for other in range(1, self.count + 1) if other != number]
        words = [*self.mesh(self.file(number), self.count - 1), "--origin", self.at(0)]
        return [*words, "--others", ",".join(others)] if others else words

    def mesh(self, file, askers):
        """What all nodes have in common."""
        return [self.args.binaries / "yardstick", "mesh", "--size", self.source.stat().st_size,
                "--listen", f"0.0.0.0:{PORT}", "--askers", askers, file]

    def at(self, number):
        """Where a node listens."""
        return f"{self.network.address(number)}:{PORT}"


class Torrent(System):
    """What BitTorrent clients have in common: a torrent, and a tracker that is not on any limited line."""

    def prepare(self, origins):
        self.torrent = self.place / "f.torrent"
        url = f"http://{SWITCH_ADDRESS}:{TRACKER_PORT}/announce"
        torrents.make(self.source, self.torrent, url, self.piece_size())
        self.tracker = self.network.spawn(
            None, [SYSTEM_PYTHON, HERE / "torrents.py", f"{SWITCH_ADDRESS}:{TRACKER_PORT}"], stdout=subprocess.PIPE)
        self.tracker.stdout.readline()
        processes = []
        for host in origins:
            folder = self.place / f"seed-{host}"
            folder.mkdir()
            shutil.copyfile(self.source, folder / NAME)
            words = self.seed_words(host, folder)
            node = Node(self.network, host, words, self.place / f"seed-{host}.err", self.is_done)
            node.wait_until_ready()
            node.go()
            processes.append(node.process)
        time.sleep(2)  # until all have announced themselves
        return processes

    def piece_size(self):
        """Bytes of a piece."""
        return self.args.piece_size << 10

    def seed_words(self, host, folder):
        """The command of an origin."""
        raise NotImplementedError

    def close(self):
        self.tracker.kill()
        self.tracker.wait()


class Libtorrent(Torrent):
    """libtorrent's defaults, but for discovery, uTP and the tracker's interval; pieces as its own tool makes them."""

    name = "libtorrent, sensible"
    profile, role = "sensible", "seed"

    @classmethod
    def missing(cls, _args):
        try:
            subprocess.run([SYSTEM_PYTHON, "-c", "import libtorrent"], check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            return "not installed (apt-get install python3-libtorrent)"
        return None

    @classmethod
    def settings(cls, args):
        said = version(SYSTEM_PYTHON, str(HERE / "libtorrent_node"), "settings", cls.profile)
        piece = args.piece_size if cls.profile == "tuned" else 128
        return f"pieces of {piece} KiB{', super-seeding' * (cls.role == 'super-seed')}; {said}"

    def piece_size(self):
        return super().piece_size() if self.profile == "tuned" else 128 << 10

    def node(self, host, role, folder):
        return [SYSTEM_PYTHON, HERE / "libtorrent_node", "swarm", role, self.torrent, folder,
                f"{self.network.address(host)}:{PORT}", self.profile]

    def seed_words(self, host, folder):
        return self.node(host, self.role, folder)

    def words(self, number):
        return self.node(number, "get", self.folder(number))


class LibtorrentTuned(Libtorrent):
    """Settings for the very swarm that is measured."""

    name = "libtorrent, tuned"
    profile = "tuned"


class LibtorrentSuper(LibtorrentTuned):
    """The same, the origin super-seeding."""

    name = "libtorrent, super-seeding"
    role = "super-seed"


class Aria2(Torrent):
    """aria2 as a BitTorrent client."""

    name = "aria2"
    options = ["--no-conf", "--quiet", "--enable-dht=false", "--enable-dht6=false", "--disable-ipv6=true",
               "--bt-enable-lpd=false", "--enable-peer-exchange=true", "--bt-max-peers=0", "--file-allocation=none",
               "--bt-tracker-interval=1", "--bt-request-peer-speed-limit=1000M", "--max-overall-upload-limit=0",
               "--max-upload-limit=0", "--max-download-limit=0", "--follow-torrent=false", "--allow-overwrite=true",
               "--disk-cache=64M", "--bt-require-crypto=false", "--seed-ratio=0.0", f"--listen-port={PORT}"]

    @classmethod
    def missing(cls, _args):
        return installed("aria2c", "aria2")

    @classmethod
    def settings(cls, args):
        return f"pieces of {args.piece_size} KiB; {version('aria2c', '--version')}; {' '.join(cls.options)}"

    def prepare(self, origins):
        # A child of aria2 says on its behalf, and on its stdout, that the download is complete.
        self.hook = self.place / "complete.sh"
        self.hook.write_text("#!/bin/sh\necho done\n")
        self.hook.chmod(0o700)
        return super().prepare(origins)

    def seed_words(self, host, folder):
        return [*WAIT, "aria2c", *self.options, "-d", folder, "--bt-seed-unverified=true", "--check-integrity=false",
                self.torrent]

    def words(self, number):
        return [*WAIT, "aria2c", *self.options, "-d", self.folder(number),
                f"--on-bt-download-complete={self.hook}", self.torrent]


SYSTEMS = {
    "anchorage": Anchorage, "chain": Chain, "verified-chain": VerifiedChain,
    "verified-mesh": VerifiedMesh,
    "libtorrent-tuned": LibtorrentTuned, "libtorrent": Libtorrent, "libtorrent-super": LibtorrentSuper, "aria2": Aria2,
}
