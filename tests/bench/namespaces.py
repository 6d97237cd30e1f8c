"""A bridge and hosts in network namespaces of their own, every line limited both ways by a token bucket. Needs root.

    host 0 ── eth0 ═══ p0 ──┐                    leaving a host: TBF on its eth0, a queue of 4 MiB, since a short one
    host 1 ── eth0 ═══ p1 ──┼── switch0            would starve flows by local drops (TCP small queues keep it fair)
      ⋮                     │   10.77.255.254    coming to a host: TBF on its port, a drop-tail queue of about 50 ms
    host n ── eth0 ═══ pn ──┘
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time

QUEUE_OUT = 4 << 20
QUEUE_IN_S = 0.05
# One segmentation-offload packet: smaller buckets cut them up, and two cores then do little else.
BURST = 70_000
SWITCH_ADDRESS = "10.77.255.254"


def sh(*words):
    """Runs a command that must not fail."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """A bridge and one host for each pair of rates (up, down, in Mbit/s). Everything goes on exit."""

    def __init__(self, lines):
        self.tag = f"anc{os.getpid()}"
        self.lines = lines
        self.hosts = []
        self.switch = f"{self.tag}-sw"
        self.holder = None

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        sh("ip", "netns", "add", self.switch)
        inside = ["ip", "-n", self.switch]
        # What crosses a bridge need not pass through the firewall.
        subprocess.run(["ip", "netns", "exec", self.switch, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"],
                       stderr=subprocess.DEVNULL, check=False)
        sh(*inside, "link", "set", "lo", "up")
        sh(*inside, "link", "add", "name", "switch0", "type", "bridge")
        sh(*inside, "addr", "add", f"{SWITCH_ADDRESS}/16", "dev", "switch0")
        sh(*inside, "link", "set", "switch0", "up")
        for number, (up, down) in enumerate(self.lines):
            host, port = f"{self.tag}-{number}", self.port(number)
            sh("ip", "netns", "add", host)
            self.hosts.append(host)
            own = ["ip", "-n", host]
            sh(*own, "link", "add", "eth0", "address", hardware_address(number), "type", "veth",
               "peer", "name", port, "netns", self.switch)
            sh(*inside, "link", "set", port, "master", "switch0", "up")
            sh(*own, "addr", "add", f"{self.address(number)}/16", "dev", "eth0")
            sh(*own, "link", "set", "lo", "up")
            sh(*own, "link", "set", "eth0", "up")
            # No host remembers from one run to the next what a path was like.
            sh("ip", "netns", "exec", host, "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
            shape(host, "eth0", up, QUEUE_OUT)
            shape(self.switch, port, down, int(down * 1e6 / 8 * QUEUE_IN_S))
        self.introduce()
        # /proc/PID/net/dev of a process that lives in the switch shows all ports without a process for each look.
        self.holder = subprocess.Popen(["ip", "netns", "exec", self.switch, "sleep", "infinity"])
        deadline = time.monotonic() + 5
        while len(self.bytes()) < len(self.hosts):
            if time.monotonic() > deadline:
                raise RuntimeError("the ports of the switch cannot be seen in /proc")
            time.sleep(0.01)

    def introduce(self):
        """Tells every host where all others are: what 33 hosts find out of each other by themselves, by ARP, is more than
        the kernel keeps for all namespaces together (1,024), and then some of them have "no route to host"."""
        for host in self.hosts:
            lines = [f"neigh replace {self.address(other)} lladdr {hardware_address(other)} dev eth0 nud permanent"
                     for other in range(len(self.hosts)) if self.hosts[other] != host]
            subprocess.run(["ip", "-n", host, "-batch", "-"], input="\n".join(lines), text=True, check=True)

    @staticmethod
    def port(number):
        """The switch's end of a host's line."""
        return f"p{number}"

    @staticmethod
    def address(number):
        """The address of a host."""
        return f"10.77.{number // 200}.{number % 200 + 1}"

    def spawn(self, number, words, **options):
        """Starts a process on a host; none: in the switch, where no line is limited."""
        namespace = self.switch if number is None else self.hosts[number]
        return subprocess.Popen(["ip", "netns", "exec", namespace, *map(str, words)], **options)

    def bytes(self):
        """(sent, received) of every host so far, packets as the kernel hands them on: most headers are missing."""
        found = {}
        with open(f"/proc/{self.holder.pid}/net/dev", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                name = fields[0]
                if name[0] == "p" and name[1:-1].isdigit():
                    # What the switch's end has received, the host has sent.
                    found[int(name[1:-1])] = (int(fields[1]), int(fields[9]))
        return [found[number] for number in sorted(found)]

    def on_the_wire(self, number):
        """Bytes that a host has put on its line, every header of every packet included, as its TBF counts them."""
        text = sh("tc", "-n", self.hosts[number], "-j", "-s", "qdisc", "show", "dev", "eth0", "root")
        return json.loads(text)[0]["bytes"]

    def plug(self, number, state):
        """Pulls a host's line out of the switch ("down"), or puts it back ("up")."""
        sh("ip", "-n", self.switch, "link", "set", self.port(number), state)

    def pids(self, number):
        """What runs on a host."""
        return [int(pid) for pid in sh("ip", "netns", "pids", self.hosts[number]).split()]

    def signal(self, number, which):
        """Sends a signal to all that runs on a host."""
        for pid in self.pids(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)

    def clear(self):
        """Ends all that runs on the hosts, and lets the queues run empty."""
        for number in range(len(self.hosts)):
            self.plug(number, "up")
            self.signal(number, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(self.pids(number) for number in range(len(self.hosts))) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(QUEUE_OUT / min(up * 1e6 / 8 for up, _ in self.lines))

    def __exit__(self, *_):
        if self.holder:
            self.holder.kill()
            self.holder.wait()
        for number, host in enumerate(self.hosts):
            with contextlib.suppress(RuntimeError):
                self.signal(number, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "netns", "delete", self.switch], stderr=subprocess.DEVNULL, check=False)


def hardware_address(number):
    """The locally administered hardware address of a host."""
    return f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"


def shape(namespace, device, mbit, limit):
    """Limits what a device sends. A slow line takes packets one by one, lest one of 64 KiB fill its queue."""
    burst = min(BURST, max(3_000, limit // 2))
    sh("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf",
       "rate", f"{mbit * 1000:.0f}kbit", "burst", burst, "limit", limit)


class Lines:
    """Looks at all lines again and again while it is entered: seconds, and bytes sent and received by each host."""

    def __init__(self, network, every=0.025):
        self.network, self.every = network, every
        self.looks = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.look()
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(self.every):
            self.look()

    def look(self):
        self.looks.append((time.monotonic(), self.network.bytes()))

    def received(self, number):
        """Bytes that a host has received since the beginning."""
        return self.looks[-1][1][number][1] - self.looks[0][1][number][1]

    def longest_pause(self, number, start, end, least, window=0.1):
        """The longest time between two moments in which a host received less than `least` bytes a second."""
        longest, since = 0.0, None
        before = None
        for when, hosts in self.looks:
            if not start <= when <= end:
                continue
            now = hosts[number][1]
            if before is None:
                before = (when, now)
            elif when - before[0] >= window:
                if now - before[1] < least * (when - before[0]):
                    since = before[0] if since is None else since
                    longest = max(longest, when - since)
                else:
                    since = None
                before = (when, now)
        return longest

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.look()
