"""The scenarios of `tests/bench/swarm`: who takes part with which lines, what happens at half, and what the bound is.

Host 0 is the origin, hosts 1 to N are the getters, whoever else there is comes after them. The yardstick is Kumar and
Ross's minimum distribution time (2006), `T* = max(F/u_origin, F/d_min, N·F/(u_origin + Σ u_i))`, with the rates of the
lines; TCP payload is at most 95.6 % of a line, so that 1.05 is the floor. "At half" is when the median getter has
received half of the file on its line.
"""

import signal

BYTE = 1e6 / 8


def minimum(size, origins, downs, ups):
    """Kumar and Ross's minimum in seconds; rates in Mbit/s."""
    return max(size / (sum(origins) * BYTE), size / (min(downs) * BYTE),
               len(downs) * size / ((sum(origins) + sum(ups)) * BYTE))


class Plain:
    """All getters start at once, all lines are equal."""

    name = "plain"
    # The scenario's own figure, its unit last.
    figure_name = None
    # The scenario without what makes it one, run beside it.
    base = None

    def __init__(self, count, rate):
        self.count, self.rate = count, rate
        self.ups, self.downs = [rate] * (count + 1), [rate] * (count + 1)
        self.origins = [0]
        # Hosts of getters that start at half. They are waited for, too, but the makespan is not about them.
        self.later = []

    def lines(self):
        """(up, down) of every host in Mbit/s."""
        return list(zip(self.ups, self.downs))

    def at_start(self):
        """Hosts of the getters that start at once."""
        return list(range(1, self.count + 1))

    def at_half(self, run):
        """What happens when the median getter is at half; `run` is a `Run` of tests/bench/swarm."""

    def awaited(self):
        """Hosts whose files the makespan is about."""
        return self.at_start()

    def bound(self, size):
        """The least makespan of those who are awaited, in seconds."""
        hosts = self.awaited()
        return minimum(size, [self.ups[host] for host in self.origins], [self.downs[host] for host in hosts],
                       [self.ups[host] for host in hosts])

    def figure(self, run):
        """The scenario's own figure of a run, if it has one."""


class SlowHalf(Plain):
    """Every other getter has a fifth of the uplink."""

    name = "slow-half"

    def __init__(self, count, rate):
        super().__init__(count, rate)
        for number in range(1, count + 1, 2):
            self.ups[number] = rate / 5


class Late(Plain):
    """One more getter starts when the others are at half; its own bound is F/d. The makespan is that of the others."""

    name = "late"
    figure_name = "late one / its bound"

    def __init__(self, count, rate):
        super().__init__(count, rate)
        self.ups.append(rate)
        self.downs.append(rate)
        self.later = [count + 1]

    def at_half(self, run):
        run.start(self.count + 1)

    def figure(self, run):
        late = run.nodes[self.count + 1]
        return (late.finished - late.started) / (run.size / (self.downs[-1] * BYTE))


class KillThird(Plain):
    """A third of the getters is killed at half; T* is that of a swarm of the others alone."""

    name = "kill-third"

    def at_half(self, run):
        for host in self.at_start()[:self.count // 3]:
            run.kill(host)

    def awaited(self):
        return self.at_start()[self.count // 3:]


class SlowGetter(Plain):
    """One more getter has 2 Mbit/s down; nobody waits for it. How much longer do the others take than without it?"""

    name = "slow-getter"
    figure_name = "others with / without it"
    base = Plain

    def __init__(self, count, rate):
        super().__init__(count, rate)
        self.ups.append(rate)
        self.downs.append(2)

    def at_start(self):
        return list(range(1, self.count + 2))

    def awaited(self):
        return list(range(1, self.count + 1))

    def figure(self, run):
        return run.seconds / run.base_seconds


class Stall(Plain):
    """One getter stops at half, its connections stay open (SIGSTOP). T* is that of the others alone."""

    name = "stall"
    figure_name = "longest pause s"

    def at_half(self, run):
        run.network.signal(1, signal.SIGSTOP)

    def awaited(self):
        return self.at_start()[1:]

    def figure(self, run):
        """The longest time in which some awaited getter received less than a tenth of its line."""
        return max(run.lines.longest_pause(host, run.half, run.nodes[host].finished, self.downs[host] * BYTE / 10)
                   for host in self.awaited())


class Unplug(Stall):
    """One getter's line is pulled out at half: packets to it and from it vanish."""

    name = "unplug"

    def at_half(self, run):
        run.network.plug(1, "down")


class TwoAnchors(Plain):
    """Two origins have the file. The first copy is split between them."""

    name = "two-anchors"
    figure_name = "the lesser origin / F"

    def __init__(self, count, rate):
        super().__init__(count, rate)
        self.ups.append(rate)
        self.downs.append(rate)
        self.origins = [0, count + 1]

    def figure(self, run):
        return min(run.origin) / run.size


class StallAnchor(TwoAnchors):
    """Two origins have the file; the second one stops at half, its connections stay open (SIGSTOP)."""

    name = "stall-anchor"
    figure_name = Stall.figure_name
    figure = Stall.figure

    def at_half(self, run):
        run.network.signal(self.count + 1, signal.SIGSTOP)

    def bound(self, size):
        return minimum(size, self.ups[:1], self.downs[1:-1], self.ups[1:-1])


SCENARIOS = {one.name: one for one in (
    Plain, SlowHalf, Late, KillThird, SlowGetter, Stall, Unplug, TwoAnchors, StallAnchor)}
