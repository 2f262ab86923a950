#!/usr/bin/env python3
"""The first figures of the product, from one script, with Python's own library only.

    cargo build --release
    python3 benches/figures.py [--json FILE] [--only join,keys,flood,memory,idle,stopped] [--quick]

$COLLAB_P2P names the program (default: target/release/collab-p2p beside this file's folder). Every program runs on
an 80x24 PTY of its own, everybody has a state folder of their own, all on this machine over loopback, without
multicast DNS. What is measured:

join    from exec of `join` until a word of the host's screen is in what the viewer has painted; p50 and p95 of 20
keys    from a key written to one viewer's PTY until its glyph is in what another viewer has painted
flood   `seq 1 2000000` in the shared shell, against the same on a bare PTY that is read as fast; the ratio
memory  resident and proportional memory of the host's process with 1 and with 20 viewers
idle    CPU time of the host and of a viewer over 10 idle seconds
stopped one of two viewers stopped by SIGSTOP during floods: time and memory of the host, and how soon it is current

The peers' figures come from the yardstick that runs them side by side; these here are for following ourselves.
"""

import argparse
import fcntl
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import statistics
import string
import struct
import subprocess
import sys
import tempfile
import termios
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.environ.get("COLLAB_P2P") or os.path.join(HERE, "target/release/collab-p2p")
COLS, ROWS = 80, 24
TICKS = os.sysconf("SC_CLK_TCK")
SEQUENCES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78MDEHc])")
now = time.perf_counter


class Window:
    """A program on its own PTY."""

    def __init__(self, argv, env, cwd):
        self.fd, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
        os.set_blocking(self.fd, False)
        self.seen, self.open = b"", True

        def child():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.begun = now()
        self.process = subprocess.Popen(argv, stdin=there, stdout=there, stderr=there, env=env, cwd=cwd,
                                        preexec_fn=child)
        os.close(there)

    def type(self, text):
        data = text.encode()
        while data:
            try:
                data = data[os.write(self.fd, data):]
            except BlockingIOError:
                select.select([], [self.fd], [], 0.1)

    def text(self):
        """What was painted since `forget`, without escape sequences: glyphs in the order of painting."""
        return SEQUENCES.sub(b"", self.seen)

    def forget(self):
        self.seen = b""

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.open:
            os.close(self.fd)
            self.open = False


class World:
    """A host, its viewers, and the loop that reads all of them."""

    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="cpf-")
        self.windows, self.count = [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for window in reversed(self.windows):
            window.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def env(self, name):
        return {"PATH": os.environ["PATH"], "HOME": self.place, "TERM": "xterm-256color", "LANG": "C.UTF-8",
                "USER": name, "SHELL": "/bin/sh", "PS1": "READY> ", "HISTFILE": "/dev/null"}

    def window(self, argv, name="x"):
        window = Window(argv, self.env(name), self.place)
        self.windows.append(window)
        return window

    def program(self, name, *words):
        return self.window([PROGRAM, "--state-dir", os.path.join(self.place, name), *words], name)

    def share(self, *flags, command=("sh",)):
        ticket = os.path.join(self.place, "ticket")
        self.host = self.program("host", "share", "--no-mdns", "--name", "host", "--ticket-file", ticket, *flags,
                                 "--", *command)
        self.spin(15, lambda: os.path.exists(ticket) and os.path.getsize(ticket) > 0, "a ticket")
        with open(ticket) as file:
            self.ticket = file.read().strip()
        self.spin(10, lambda: b"READY>" in self.host.text(), "the shell's prompt")
        return self.host

    def join(self):
        self.count += 1
        name = "v%d" % self.count
        return self.program(name, "join", "--no-mdns", "--name", name, self.ticket)

    def drop(self, window):
        window.close()
        self.windows.remove(window)

    def spin(self, seconds, until=None, what="", on_read=None):
        """Reads everybody until something holds; the moment of the read after which it did."""
        end, stamp = now() + seconds, now()
        while until is None or not until():
            left = end - now()
            if left <= 0:
                if until is None:
                    return stamp
                shown = [window.text()[-200:] for window in self.windows]
                raise SystemExit("waited in vain for %s: %r" % (what, shown))
            fds = {window.fd: window for window in self.windows if window.open}
            # A fresh look at files, too, while nothing is printed.
            ready = select.select(list(fds), [], [], min(left, 0.02))[0]
            for fd in ready:
                try:
                    data = os.read(fd, 65536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                stamp = now()
                window = fds[fd]
                if not data:
                    os.close(fd)
                    window.open = False
                    continue
                window.seen = (window.seen + data)[-400000:]
                if on_read:
                    on_read(window, stamp)
        return stamp


def spread(values):
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return {"n": len(ordered), "p50": statistics.median(ordered), "p95": at(0.95), "max": ordered[-1]}


def measure_join(quick):
    times = []
    with World() as world:
        host = world.share()
        for n in range(5 if quick else 20):
            word = "".join(random.sample(string.ascii_uppercase, 12))
            done = os.path.join(world.place, "word%d" % n)
            # The host's own painting may leave out letters that were there before: a file tells instead.
            host.type("clear; echo %s''%s; : > %s\r" % (word[:5], word[5:], done))
            world.spin(5, lambda: os.path.exists(done), "the word at the host")
            world.spin(0.3)
            viewer = world.join()
            stamp = world.spin(10, lambda: word.encode() in viewer.text(), "the word at the viewer")
            times.append((stamp - viewer.begun) * 1000)
            world.drop(viewer)
            host.forget()
    return {"join_ms": spread(times)}


def measure_keys(quick):
    """Viewer to viewer, and host to viewer, through `cat` on a PTY that echoes."""
    out = {}
    with World() as world:
        host = world.share("--role", "editor", "--accept", "--control", "auto")
        a, b = world.join(), world.join()
        for viewer in (a, b):
            world.spin(10, lambda: b"READY>" in viewer.text(), "the prompt at the viewer")
        for name, typist in (("viewer_to_viewer", a), ("host_to_viewer", host)):
            typist.type("clear; cat\r")
            world.spin(1.5)
            times = []
            for n in range(30 if quick else 200):
                # A word that was not on the screen; its last letter shows when all have arrived.
                key = chr(0x4e00 + n + (500 if typist is host else 0))
                glyph = key.encode()
                b.forget()
                begun = now()
                typist.type(key)
                stamp = world.spin(5, lambda: glyph in b.seen, "the key at the other viewer")
                times.append((stamp - begun) * 1000)
                world.spin(random.uniform(0.02, 0.05))
                if n % 25 == 24:
                    typist.type("\r")
                    world.spin(0.05)
            out["key_ms_" + name] = spread(times)
            typist.type("\x03")
            world.spin(0.3)
    floor = []
    with World() as world:
        bare = world.window(["cat"])
        world.spin(0.2)
        for n in range(100):
            glyph = chr(0x4e00 + n).encode()
            begun = now()
            bare.type(glyph.decode())
            stamp = world.spin(2, lambda: glyph in bare.seen, "the echo of a bare PTY")
            floor.append((stamp - begun) * 1000)
            world.spin(0.01)
    out["key_ms_bare_pty"] = spread(floor)
    return out


def flood(world, window, lines, viewer=None):
    """Seconds of the flood by the shell's own clock, and from its end until the viewer has painted what follows."""
    stamp = os.path.join(world.place, "flood")
    window.type("clear; date +%%s.%%N > %s.a; seq 1 %d; date +%%s.%%N > %s.b; echo FLOOD''OVER\r" % (stamp, lines, stamp))
    seen = {}

    def look(read, _):
        if read is viewer and "viewer" not in seen and b"FLOODOVER" in read.text():
            seen["viewer"] = time.time()

    def over():
        ended = os.path.exists(stamp + ".b") and os.path.getsize(stamp + ".b") > 0
        return ended and (viewer is None or "viewer" in seen)

    world.spin(180, over, "the flood's end", on_read=look)
    times = []
    for end in (".a", ".b"):
        with open(stamp + end) as file:
            times.append(float(file.read()))
        os.unlink(stamp + end)
    return times[1] - times[0], (seen["viewer"] - times[1]) * 1000 if viewer else None


def measure_flood(quick):
    lines, out = (200_000 if quick else 2_000_000), {}
    bare_s, shared_s, last_ms = [], [], []
    for _ in range(1 if quick else 3):
        with World() as world:
            bare = world.window(["sh"])
            world.spin(5, lambda: b"READY>" in bare.text(), "the prompt of a bare PTY")
            bare_s.append(flood(world, bare, lines)[0])
        with World() as world:
            host = world.share()
            viewer = world.join()
            world.spin(10, lambda: b"READY>" in viewer.text(), "the prompt at the viewer")
            seconds, last = flood(world, host, lines, viewer)
            shared_s.append(seconds)
            last_ms.append(last)
    out["flood_bare_s"] = statistics.median(bare_s)
    out["flood_shared_s"] = statistics.median(shared_s)
    out["flood_ratio"] = out["flood_shared_s"] / out["flood_bare_s"]
    out["flood_end_at_viewer_ms"] = statistics.median(last_ms)
    return out


def memory(pid):
    facts = {}
    with open("/proc/%d/smaps_rollup" % pid) as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("Rss", "Pss"):
                facts[key.lower() + "_mib"] = int(value.split()[0]) / 1024
    return facts


def measure_memory(quick):
    out, most = {}, (5 if quick else 20)
    with World() as world:
        host = world.share()
        for count in range(1, most + 1):
            viewer = world.join()
            world.spin(20, lambda: b"READY>" in viewer.text(), "the prompt at viewer %d" % count)
            if count in (1, most):
                world.spin(3)
                for key, value in memory(host.process.pid).items():
                    out["host_%d_viewers_%s" % (count, key)] = value
                for key, value in memory(viewer.process.pid).items():
                    out["viewer_of_%d_%s" % (count, key)] = value
        if most > 1:
            out["host_more_for_viewers_mib"] = out["host_%d_viewers_rss_mib" % most] - out["host_1_viewers_rss_mib"]
    return out


def cpu(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure_idle(quick):
    seconds = 3 if quick else 10
    with World() as world:
        host = world.share()
        viewer = world.join()
        world.spin(10, lambda: b"READY>" in viewer.text(), "the prompt at the viewer")
        world.spin(3)
        pids = {"host": host.process.pid, "viewer": viewer.process.pid}
        before = {who: cpu(pid) for who, pid in pids.items()}
        world.spin(seconds)
        return {"idle_cpu_percent_" + who: (cpu(pid) - before[who]) * 100 / seconds for who, pid in pids.items()}


def queue_shares(world):
    """How full each of the host's queues has been, as a share of its limit, the fullest first."""
    words = [PROGRAM, "--state-dir", os.path.join(world.place, "host"), "status", "--json"]
    run = subprocess.run(words, env=world.env("host"), cwd=world.place, capture_output=True, text=True, timeout=20)
    queues = json.loads(run.stdout)["queues"]
    for queue in queues:
        if queue["peak"] > queue["limit"]:
            raise SystemExit("%(name)s: %(peak)d of %(limit)d" % queue)
    shares = {queue["name"]: queue["peak"] / queue["limit"] for queue in queues if queue["peak"]}
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def measure_stopped(quick):
    """One of two viewers stands still during floods: what the others and the host's memory notice, and how soon it
    is current when it goes on."""
    lines, rounds, out = (200_000 if quick else 2_000_000), (2 if quick else 4), {}
    with World() as world:
        host = world.share()
        viewer, stopped = world.join(), world.join()
        for window in (viewer, stopped):
            world.spin(10, lambda: b"READY>" in window.text(), "the prompt at a viewer")
        flood(world, host, lines, viewer)
        for name, stands_still in (("all_run", False), ("one_stopped", True)):
            if stands_still:
                stopped.process.send_signal(signal.SIGSTOP)
            begun, seconds, last_ms = memory(host.process.pid)["rss_mib"], [], []
            for _ in range(rounds):
                viewer.forget()
                second, last = flood(world, host, lines, viewer)
                seconds.append(second)
                last_ms.append(last)
            out["flood_s_" + name] = statistics.median(seconds)
            out["flood_end_at_viewer_ms_" + name] = statistics.median(last_ms)
            out["host_grew_mib_" + name] = memory(host.process.pid)["rss_mib"] - begun
        # Glyphs that stood in no cell before, so that all of them are painted.
        word = "".join(chr(0x4e00 + n) for n in random.sample(range(500), 8))
        viewer.forget()
        host.type("clear; echo %s''%s\r" % (word[:4], word[4:]))
        world.spin(10, lambda: word.encode() in viewer.text(), "the word at the viewer")
        stopped.forget()
        begun = now()
        stopped.process.send_signal(signal.SIGCONT)
        stamp = world.spin(10, lambda: word.encode() in stopped.text(), "the word at who stood still")
        out["current_after_continue_ms"] = (stamp - begun) * 1000
        for name, share in list(queue_shares(world).items())[:5]:
            out["queue_peak_percent_" + name] = share * 100
    return out


MEASURES = {"join": measure_join, "keys": measure_keys, "flood": measure_flood, "memory": measure_memory,
            "idle": measure_idle, "stopped": measure_stopped}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--only", default=",".join(MEASURES), help="which, separated by commas")
    words.add_argument("--json", metavar="FILE", help="also write the figures there")
    words.add_argument("--quick", action="store_true", help="fewer rounds, to see that it works")
    args = words.parse_args()
    if not os.access(PROGRAM, os.X_OK):
        raise SystemExit("no program at %s: build it, or name it by COLLAB_P2P" % PROGRAM)
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout.strip()
    figures = {"program": version, "cores": os.cpu_count(), "load1_before": os.getloadavg()[0]}
    for name in args.only.split(","):
        print("measuring %s" % name, file=sys.stderr, flush=True)
        figures.update(MEASURES[name](args.quick))
    figures["load1_after"] = os.getloadavg()[0]
    for key, value in figures.items():
        if isinstance(value, dict):
            value = "p50 %.2f   p95 %.2f   max %.2f   (n %d)" % (value["p50"], value["p95"], value["max"], value["n"])
        elif isinstance(value, float):
            value = "%.2f" % value
        print("%-34s %s" % (key, value))
    print(json.dumps(figures))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
