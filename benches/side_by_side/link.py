"""A slow or long link between two network namespaces, in user space: for kernels without the shapers of `tc`, and the
same everywhere.

Each namespace gets a TUN device; the loop carries packets from one to the other, one after the other at the given rate,
and later by the given delay. What does not fit the queue is dropped, as routers do. Needs root and /dev/net/tun.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
# A queue as home routers have it: 100 ms at 20 Mbit/s.
QUEUE_BYTES = 256 * 1024
ADDRESS = {"host": "10.77.0.1", "viewer": "10.77.0.2"}


class Unfit(Exception):
    """This machine cannot have such a link, and why."""


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise Unfit("%s: %s" % (" ".join(argv), done.stderr.strip()))


class Link:
    """Two namespaces, `host` and `viewer`, and the process that carries packets between them."""

    def __init__(self, mbit=None, delay_ms=0):
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            raise Unfit("a link of its own needs root and /dev/net/tun")
        self.names = {side: "sbs-%d-%s" % (os.getpid(), side) for side in ADDRESS}
        self.carrier = None
        try:
            for name in self.names.values():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
                run("ip", "-n", name, "tuntap", "add", "mode", "tun", "name", "far0")
            self.carrier = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), str(mbit or 0), str(delay_ms), *self.names.values()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self.carrier.stdout.readline() != b"ready\n":
                raise Unfit("the link does not begin")
            for side, name in self.names.items():
                run("ip", "-n", name, "address", "add", ADDRESS[side] + "/24", "dev", "far0")
                run("ip", "-n", name, "link", "set", "far0", "up")
        except BaseException:
            self.close()
            raise

    def inside(self, side):
        """What stands before a command that runs on that side."""
        return ["ip", "netns", "exec", self.names[side]]

    def close(self):
        if self.carrier:
            self.carrier.kill()
            self.carrier.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


class Lane:
    """One direction: what waits, and when the wire is free again."""

    def __init__(self, bytes_per_second, delay):
        self.rate, self.delay = bytes_per_second, delay
        self.free, self.flying = 0.0, collections.deque()

    def put(self, packet, now):
        begins = max(now, self.free)
        if self.rate:
            if (begins - now) * self.rate > QUEUE_BYTES:
                return
            self.free = begins + len(packet) / self.rate
        else:
            self.free = now
        self.flying.append((self.free + self.delay, packet))

    def take(self, now):
        while self.flying and self.flying[0][0] <= now:
            yield self.flying.popleft()[1]


def tun(name):
    """The TUN device of a namespace; this process comes back to its own."""
    with open("/proc/self/ns/net") as home, open("/run/netns/" + name) as there:
        enter(there.fileno())
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"far0", IFF_TUN | IFF_NO_PI))
        enter(home.fileno())
    return fd


def enter(namespace):
    """Moves this process into a network namespace. Before Python 3.12 the call is only in the C library."""
    if hasattr(os, "setns"):
        return os.setns(namespace, CLONE_NEWNET)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def carry(mbit, delay_ms, names):
    """Carries packets until the one who began it lets go of stdin."""
    fds = [tun(name) for name in names]
    lanes = {fd: Lane(float(mbit) * 125_000, float(delay_ms) / 1000) for fd in fds}
    other = {fds[0]: fds[1], fds[1]: fds[0]}
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        for fd, lane in lanes.items():
            for packet in lane.take(now):
                try:
                    os.write(other[fd], packet)
                except OSError:
                    pass  # The other side is not up yet or takes no more: lost, as on any link.
        due = [lane.flying[0][0] for lane in lanes.values() if lane.flying]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        for fd in select.select([*fds, 0], [], [], wait)[0]:
            if fd == 0:
                return
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except OSError:
                    break
                lanes[fd].put(packet, time.monotonic())


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], sys.argv[3:])
