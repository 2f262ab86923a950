#!/usr/bin/env python3
"""Real use for an hour: a host, four viewers, keys, chat, floods, crashes and cuts, and a ledger of what must hold.

    cargo build --release
    python3 benches/soak.py [--minutes M] [--seed N] [--json FILE]

$COLLAB_P2P names the program (default: target/release/collab-p2p beside this file's folder). Everybody is a full
screen on a PTY of its own. Ann and Ben reach the host only by a forwarder on loopback that cuts their connections in
the middle of whatever goes through; Cid and Dan share a run folder with the host and find each other directly. Ann
and Ben are stopped and continued, Cid is killed and comes back again and again, Dan and the host in the first half
only, so that the memory of all but Cid can be followed through the second.

What must hold, looked at in calm moments every two minutes and at the end:

keys    the shared program has read exactly what was typed with control: each key once, in order. Who was out of
        reach for so long that the lease ended by itself was told how many keys were written, and just those were
chat    each message that `chat` called saved is listed by everybody, once, in one order
screens everybody's picture is that of the host, cell for cell
memory  no node has grown by more than 4 MiB in the second half of the time

It ends with 0 if all of that held, else with 1 and what did not.
"""

import argparse
import fcntl
import glob
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from datetime import datetime, timezone

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.environ.get("COLLAB_P2P") or os.path.join(HERE, "target/release/collab-p2p")
TOKEN = re.compile(rb"[a-e]\d{6};")
GROWTH_KIB_MAX = 4 * 1024
CALM_EVERY_S = 120
SETTLE_S = 45
OUT_OF_REACH = "its holder was gone for too long"
CUT_SHORT = re.compile(r"(\d+) of \d+ bytes were written, \d+ were not, 0 may have been")
now = time.monotonic

# The shared program: notes every byte that it reads, echoes it, and floods from Ctrl-F until Ctrl-C or its end.
LISTENER = r"""
import os, select, sys, tty
tty.setraw(0)
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
left, column = 0, 0
os.write(1, b"listening\r\n")
while True:
    if left == 0 or select.select([0], [], [], 0)[0]:
        data = os.read(0, 4096)
        if not data:
            break
        os.write(log, data)
        for byte in data:
            if byte == 6:
                left = 200000
            elif byte == 3:
                left = 0
                os.write(1, b"\r\nquiet\r\n")
            else:
                os.write(1, bytes([byte]))
                column += 1
                if column % 72 == 0:
                    os.write(1, b"\r\n")
    if left:
        lines = b"".join(b"\x1b[3%dm%06d\x1b[m the quick brown fox\r\n" % (n % 8, n) for n in range(left, max(0, left - 200), -1))
        left = max(0, left - 200)
        os.write(1, lines)
"""


class Forwarder:
    """Carries TCP from a port of its own to another, and cuts everything after a few more bytes when told to."""

    def __init__(self, target):
        self.target, self.budget, self.closed_until = target, None, 0.0
        self.pairs, self.lock = [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def cut(self, after_bytes, away_s):
        with self.lock:
            self.budget, self.away = after_bytes, away_s

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            if now() < self.closed_until:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source, sink):
        try:
            while data := source.recv(65536):
                with self.lock:
                    over = self.budget is not None and self.budget < len(data)
                    if over:
                        data = data[:self.budget]
                    elif self.budget is not None:
                        self.budget -= len(data)
                sink.sendall(data)
                if over:
                    self.cut_all()
                    return
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut_all(self):
        with self.lock:
            if self.budget is None:
                return
            self.budget, self.closed_until = None, now() + self.away
            self.cuts += 1
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()


class Person:
    """A node with its full screen on a PTY, and the verbs that speak to it."""

    def __init__(self, world, name, letter, run):
        self.world, self.name, self.letter = world, name, letter
        self.home = os.path.join(world.place, name)
        self.run = os.path.join(world.place, run)
        for folder in (self.home, self.run):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        # Nobody listens where others would find a way past the forwarders.
        settings = os.path.join(self.home, ".config", "collab-p2p")
        os.makedirs(settings, exist_ok=True)
        with open(os.path.join(settings, "config.toml"), "w") as file:
            file.write('[network]\nlisten=["/ip4/127.0.0.1/tcp/0"]\n')
        self.process, self.fd, self.typed = None, None, 0
        self.stopped_until, self.back_at, self.memory, self.tail = 0.0, None, [], b""

    def env(self):
        return {"PATH": os.environ["PATH"], "HOME": self.home, "TERM": "xterm-256color", "LANG": "C.UTF-8",
                "USER": self.name, "SHELL": "/bin/sh", "XDG_STATE_HOME": self.home, "XDG_RUNTIME_DIR": self.run,
                "COLLAB_P2P_NO_INPUT": "1"}

    def start(self, *words, size=(24, 80)):
        self.fd, there = pty.openpty()
        self.size(*size)
        os.set_blocking(self.fd, False)

        def child():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen([PROGRAM, *words], stdin=there, stdout=there, stderr=there, env=self.env(),
                                        cwd=self.home, preexec_fn=child)
        os.close(there)
        self.memory.append([])
        self.world.watch(self)

    def size(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def ready(self):
        return self.alive() and not self.stopped_until and self.back_at is None

    def keys(self, data):
        end = now() + 20
        while data:
            try:
                data = data[os.write(self.fd, data):]
            except BlockingIOError:
                if now() > end:
                    raise Broken("%s's window takes no keys" % self.name)
                select.select([], [self.fd], [], 0.2)

    def verb(self, *words, timeout=30):
        return subprocess.run([PROGRAM, *words], env=self.env(), cwd=self.home, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)

    def asked(self, *words):
        told = self.verb(*words, "--json")
        if told.returncode != 0:
            raise Broken("%s: %s ended with %d: %s" % (self.name, words, told.returncode, told.stderr.strip()))
        return json.loads(told.stdout)

    def end(self, how):
        if self.alive():
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.world.forget(self)

    def sample(self, at):
        try:
            with open("/proc/%d/smaps_rollup" % self.process.pid) as file:
                for line in file:
                    if line.startswith("Rss:"):
                        self.memory[-1].append((at, int(line.split()[1])))
                        return
        except OSError:
            pass


    def events(self, kind):
        """What this node still tells of this kind: read from its socket for as long as something comes."""
        mine = next(person["id"] for person in self.asked("status")["participants"] if person["me"])
        told = b""
        for path in glob.glob("%s/**/%s.sock" % (self.run, mine[:8]), recursive=True):
            with socket.socket(socket.AF_UNIX) as near:
                near.settimeout(0.5)
                try:
                    near.connect(path)
                    near.sendall(b"GET /api/v1/events?since=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
                    while data := near.recv(65536):
                        told += data
                except OSError:
                    pass
        lines = [line[6:] for line in told.split(b"\n") if line.startswith(b"data: ")]
        events = [json.loads(line) for line in lines if line.rstrip().endswith(b"}")]
        return [event for event in events if event["type"] == kind]


class Broken(Exception):
    """Something that must hold does not."""


class World:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.place = tempfile.mkdtemp(prefix="soak-")
        self.people, self.watched, self.lock = [], {}, threading.Lock()
        self.log = os.path.join(self.place, "keys")
        self.expected, self.said, self.perhaps = b"", [], set()
        self.troubles, self.counts, self.chats = [], {}, []
        self.begun = now()

    # --- windows ---

    def watch(self, person):
        with self.lock:
            self.watched[person.fd] = person

    def forget(self, person):
        with self.lock:
            if self.watched.pop(person.fd, None):
                os.close(person.fd)

    def read_windows(self):
        while True:
            with self.lock:
                fds = list(self.watched)
            ready = select.select(fds, [], [], 0.05)[0] if fds else time.sleep(0.05) or []
            with self.lock:
                for fd in ready:
                    person = self.watched.get(fd)
                    if person is None:
                        continue
                    try:
                        data = os.read(fd, 65536)
                    except BlockingIOError:
                        continue
                    except OSError:
                        data = b""
                    if data:
                        person.tail = (person.tail + data)[-4000:]
                    else:
                        del self.watched[fd]
                        os.close(fd)

    # --- who is there ---

    def begin(self):
        threading.Thread(target=self.read_windows, daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        listener = os.path.join(self.place, "listener.py")
        with open(listener, "w") as file:
            file.write(LISTENER)
        self.host = Person(self, "host", "e", "shared")
        ticket = os.path.join(self.place, "ticket")
        self.host.start("share", "--no-mdns", "--no-addrs", "--listen", "/ip4/127.0.0.1/tcp/%d" % self.port,
                        "--name", "host", "--role", "editor", "--accept", "--ticket-file", ticket, "--",
                        sys.executable, listener, self.log, size=(40, 120))
        self.until(20, lambda: os.path.exists(ticket) and os.path.getsize(ticket), "a ticket")
        with open(ticket) as file:
            self.ticket = file.read().strip()
        self.ann, self.ben = Person(self, "ann", "a", "ann-run"), Person(self, "ben", "b", "ben-run")
        self.cid, self.dan = Person(self, "cid", "c", "shared"), Person(self, "dan", "d", "shared")
        self.guests = [self.ann, self.ben, self.cid, self.dan]
        self.people = [self.host, *self.guests]
        self.forwarders = {self.ann: Forwarder(self.port), self.ben: Forwarder(self.port)}
        for guest in self.guests:
            self.join(guest)
        self.settle("the beginning")

    def join(self, guest):
        by = self.forwarders.get(guest)
        port = by.port if by else self.port
        sizes = {"ann": (24, 80), "ben": (50, 160), "cid": (40, 120), "dan": (30, 100)}
        guest.start("join", "--no-mdns", "--name", guest.name, "--addr", "/ip4/127.0.0.1/tcp/%d" % port, self.ticket,
                    size=sizes[guest.name])
        guest.back_at = None

    def until(self, seconds, holds, what):
        end = now() + seconds
        while not holds():
            self.tend()
            if now() > end:
                raise Broken("waited %d s in vain for %s" % (seconds, what))
            time.sleep(0.1)

    def count(self, what, number=1):
        self.counts[what] = self.counts.get(what, 0) + number

    def trouble(self, what):
        self.troubles.append("at %.0f s: %s" % (now() - self.begun, what))
        print("TROUBLE", self.troubles[-1], flush=True)

    def tend(self):
        """Wakes who has slept long enough, brings back who was killed, and hears what `chat` has answered."""
        for person in self.people:
            if person.stopped_until and now() >= person.stopped_until:
                person.stopped_until = 0.0
                person.process.send_signal(signal.SIGCONT)
            if person.back_at is not None and now() >= person.back_at:
                if person is self.host:
                    person.start("resume", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/%d" % self.port, size=(40, 120))
                    person.back_at = None
                else:
                    self.join(person)
            elif person.back_at is None and not person.stopped_until and not person.alive():
                self.trouble("%s ended by itself with %s: %r" % (person.name, person.process.poll(), person.tail[-400:]))
                person.back_at = now() + 1
        for chat in list(self.chats):
            words, process, begun = chat
            status = process.poll()
            if status is None and now() - begun < 40:
                continue
            self.chats.remove(chat)
            if status is None:
                process.kill()
                process.wait()
            error = process.stderr.read().strip()
            process.stderr.close()
            if status == 0:
                self.said.append(words)
                self.count("messages")
            else:
                self.perhaps.add(words)
                self.count("messages refused")
                self.note("chat ended with %s: %s" % (status, error))

    def note(self, what):
        print("  [%4.0f s] %s" % (now() - self.begun, what), flush=True)

    # --- what people do ---

    def chat(self):
        who = [person for person in self.people if person.ready()]
        person = self.random.choice(who)
        person.said = getattr(person, "said", 0) + 1
        words = "%s says %d %s" % (person.name, person.said, "blah " * self.random.randrange(12))
        words = words.strip()
        process = subprocess.Popen([PROGRAM, "chat", words], env=person.env(), cwd=person.home, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.chats.append((words, process, now()))

    def tokens(self, person, count):
        made = b""
        for _ in range(count):
            person.typed += 1
            made += b"%s%06d;" % (person.letter.encode(), person.typed)
        return made

    def heard(self):
        try:
            with open(self.log, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def hold(self):
        """Somebody gets control, types while links are cut and people are stopped, and gives it back."""
        if not self.host.ready():
            return
        holders = [guest for guest in self.guests if guest.ready()]
        if not holders:
            return
        person = self.random.choice(holders)
        given = self.host.verb("control", "grant", person.name, "--for", "5m")
        if given.returncode != 0:
            self.note("no control for %s: %s" % (person.name, given.stderr.strip()))
            return
        self.until(30, lambda: self.has_control(person), "%s to learn of its control" % person.name)
        since, typed_before = datetime.now(timezone.utc), len(self.expected)
        kind = self.random.choice(("keys", "keys", "verb"))
        end = now() + self.random.uniform(4, 15)
        flooding = False
        while now() < end:
            if kind == "keys":
                data = self.tokens(person, self.random.randrange(1, 6))
                if self.random.random() < 0.03:
                    data, flooding = data + b"\x06", True
                    self.count("floods")
                elif flooding and self.random.random() < 0.2:
                    data, flooding = data + b"\x03", False
                self.expected += data
                person.keys(data)
                self.pause(self.random.uniform(0.02, 0.3))
            else:
                data = self.tokens(person, self.random.randrange(1, 200))
                self.expected += data
                told = person.verb("type", "--timeout", "25s", data.decode(), timeout=40)
                if told.returncode != 0:
                    written = CUT_SHORT.search(told.stderr)
                    if told.returncode != 4 or not written or OUT_OF_REACH not in told.stderr:
                        raise Broken("type ended with %d: %s" % (told.returncode, told.stderr.strip()))
                    unwritten = len(data) - int(written[1])
                    self.expected = self.expected[:len(self.expected) - unwritten]
                    self.count("keys not written, and told", unwritten)
                    break
                self.pause(0.1)
            self.disturb(person, awake=kind == "verb")
        if flooding:
            self.expected += b"\x03"
            person.keys(b"\x03")
        self.until(60, lambda: person.ready(), "%s to be awake" % person.name)
        self.wait_for_keys("what %s typed by %s" % (person.name, kind),
                           lambda heard: self.is_told(person, since, heard - typed_before))
        self.count("leases")
        self.give_back(person)

    def give_back(self, person):
        """Gives control back. A lease whose holder was out of reach for too long is over already: that is as it should."""
        end = now() + 20
        while True:
            told = person.verb("control", "release")
            if told.returncode == 0:
                return
            if "lease-not-held" in told.stderr:
                return self.count("leases over by themselves")
            if now() > end:
                raise Broken("%s cannot give control back: %s" % (person.name, told.stderr.strip()))
            self.pause(0.2)

    def has_control(self, person):
        if not person.ready():
            return False
        told = person.verb("control", "status", "--json")
        return told.returncode == 0 and json.loads(told.stdout)["mine"]

    def host_types(self):
        if not self.host.ready():
            return
        data = self.tokens(self.host, self.random.randrange(1, 20))
        if self.random.random() < 0.3:
            data += b"\x06"
            self.count("floods")
            self.expected += data
            self.host.keys(data)
            self.pause(self.random.uniform(0.1, 2))
            data = b"\x03" + self.tokens(self.host, 1)
        self.expected += data
        self.host.keys(data)
        self.wait_for_keys("what the host typed")
        self.count("turns of the host")

    def is_told(self, person, since, heard):
        """Whether this lease ended while its holder was out of reach, and the holder knows just which keys were written."""
        if not person.ready():
            return False
        for event in person.events("control.released"):
            data = event["data"]
            at = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
            if at < since or data["name"] != person.name or data["reason"] != OUT_OF_REACH:
                continue
            account = data["account"]
            if account["unknown"] == 0 and account["written"] == heard:
                self.count("keys not written, and told", account["not_written"])
                return True
            self.note("%s was told %s of %d bytes" % (person.name, account, heard))
        return False

    def wait_for_keys(self, what, told=lambda heard: False):
        """Until everything typed is heard; or told to be the part that was, which counts as good as that."""
        end, look = now() + SETTLE_S, now() + 5
        while True:
            heard = self.heard()
            if heard == self.expected:
                return
            if self.expected.startswith(heard) and now() > look:
                if told(len(heard)):
                    self.expected = heard
                    return
                look = now() + 2
            if not self.expected.startswith(heard) or now() > end:
                at = next((n for n, (x, y) in enumerate(zip(heard, self.expected)) if x != y),
                          min(len(heard), len(self.expected)))
                self.trouble("%s: heard %d of %d bytes, differing at %d: %r instead of %r" % (
                    what, len(heard), len(self.expected), at, heard[at - 20:at + 40], self.expected[at - 20:at + 40]))
                self.expected = heard
                return
            self.pause(0.05)

    def disturb(self, typist=None, awake=False):
        """Cuts, stops and crashes; nobody is killed who has keys on the way, nor stopped who is to stay awake."""
        draw = self.random.random()
        if draw < 0.02:
            who = self.random.choice([self.ann, self.ben])
            self.forwarders[who].cut(self.random.randrange(0, 4000), self.random.choice((0, 0, 0.5, 2, 4)))
        elif draw < 0.03:
            who = self.random.choice(self.guests)
            if who.ready() and not self.asks(who) and not (awake and who is typist):
                who.process.send_signal(signal.SIGSTOP)
                who.stopped_until = now() + self.random.uniform(0.5, 6)
                self.count("stops")
        elif draw < 0.036 and self.cid is not typist:
            self.kill(self.cid)
        elif draw < 0.042 and self.dan is not typist and self.first_half():
            self.kill(self.dan)
        elif draw < 0.05:
            self.host.size(self.random.randrange(20, 50), self.random.randrange(60, 140))
            self.count("resizes")

    def asks(self, person):
        """Whether a verb is under way at this node: it would wait for as long as the node is stopped."""
        return any(process.poll() is None and words.startswith(person.name) for words, process, _ in self.chats)

    def first_half(self):
        return now() - self.begun < self.options.minutes * 30

    def kill(self, person):
        if not person.ready():
            return
        person.end(signal.SIGKILL)
        person.back_at = now() + self.random.uniform(0, 8)
        self.count("crashes of %s" % person.name)

    def pause(self, seconds):
        end = now() + seconds
        while True:
            self.tend()
            if self.random.random() < 0.02:
                self.chat()
            left = end - now()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    # --- what must hold ---

    def settle(self, when):
        """Waits until everybody is there, and compares."""
        end, differs = now() + SETTLE_S + 30, "nothing yet"
        while self.chats or not all(person.ready() for person in self.people):
            self.tend()
            time.sleep(0.1)
            if now() > end:
                self.trouble("%s: not everybody is back: %s" % (when, [p.name for p in self.people if not p.ready()]))
                return
        end = now() + SETTLE_S
        while differs and now() < end:
            time.sleep(0.5)
            try:
                differs = self.difference()
            except (Broken, subprocess.TimeoutExpired, ValueError) as error:
                differs = str(error)
        if differs:
            self.trouble("%s: %s" % (when, differs))
        for person in self.people:
            person.sample(now() - self.begun)
        self.counts["cuts"] = sum(by.cuts for by in self.forwarders.values())
        sizes = " ".join("%s %.1f" % (p.name, p.memory[-1][-1][1] / 1024) for p in self.people if p.memory[-1])
        print("[%5.0f s] %s: %s; MiB: %s; %s" % (now() - self.begun, when, "all agree" if not differs else "DIFFERS", sizes,
                                               ", ".join("%d %s" % (n, what) for what, n in self.counts.items())), flush=True)

    def difference(self):
        if self.heard() != self.expected:
            return "the keys differ"
        lists = [[m["text"] for m in person.asked("chat", "--since", "100h")["items"]] for person in self.people]
        for person, texts in zip(self.people, lists):
            if texts != lists[0]:
                return "%s lists %d messages and the host %d, or in another order" % (person.name, len(texts), len(lists[0]))
            if len(set(texts)) != len(texts):
                return "%s lists a message twice" % person.name
        missing = set(self.said) - set(lists[0])
        if missing:
            return "saved messages are missing: %s" % sorted(missing)[:5]
        unknown = set(lists[0]) - set(self.said) - self.perhaps
        if unknown:
            return "messages that nobody said: %s" % sorted(unknown)[:5]
        pictures = [person.asked("screen") for person in self.people]
        for person, picture in zip(self.people, pictures):
            if picture != pictures[0]:
                return "%s has another picture than the host (version %s, %s)" % (
                    person.name, picture.get("version"), pictures[0].get("version"))
        return None

    def run(self):
        seconds, host_crashes = self.options.minutes * 60, [0.15, 0.35]
        calm = now() + CALM_EVERY_S
        while now() - self.begun < seconds:
            part = (now() - self.begun) / seconds
            if host_crashes and part > host_crashes[0]:
                host_crashes.pop(0)
                self.crash_of_the_host()
            try:
                if self.random.random() < 0.3:
                    self.host_types()
                else:
                    self.hold()
            except Broken as broken:
                self.trouble(str(broken))
                self.until(60, lambda: all(p.ready() for p in self.people), "everybody to be back")
                self.host.verb("control", "revoke")
                time.sleep(3)
                self.expected = self.heard()
            for _ in range(self.random.randrange(10)):
                self.disturb()
                self.pause(0.1)
            if now() > calm:
                self.settle("calm")
                calm = now() + CALM_EVERY_S
        self.settle("the end")

    def crash_of_the_host(self):
        self.until(60, lambda: self.host.ready(), "the host")
        self.kill(self.host)
        self.pause(6)
        self.until(60, lambda: self.host.ready() and self.host.verb("screen").returncode == 0, "the host's terminal")
        self.settle("the host is back")

    def growth(self):
        """KiB by which each node that lived through the second half has grown in it, from its first calm moment there."""
        half, grown = self.options.minutes * 30, {}
        for person in self.people:
            later = [kib for at, kib in person.memory[-1] if at >= half]
            if len(later) >= 2 and person is not self.cid:
                grown[person.name] = later[-1] - later[0]
        return grown

    def close(self):
        for person in reversed(self.people or [self.host]):
            if person.alive():
                person.process.send_signal(signal.SIGCONT)
            person.end(signal.SIGTERM)
        shutil.rmtree(self.place, ignore_errors=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json")
    options = options.parse_args()
    world = World(options)
    try:
        world.begin()
        world.run()
        grown = world.growth()
        for name, kib in grown.items():
            if kib > GROWTH_KIB_MAX:
                world.trouble("%s has grown by %.1f MiB in the second half" % (name, kib / 1024))
        said = {"seed": options.seed, "minutes": options.minutes, "counts": world.counts, "keys": len(world.expected),
                "cuts": {who.name: by.cuts for who, by in world.forwarders.items()}, "growth_kib": grown,
                "memory_kib": {p.name: p.memory for p in world.people}, "troubles": world.troubles}
        if options.json:
            with open(options.json, "w") as file:
                json.dump(said, file, indent=1)
        print("\n%d bytes typed, %s" % (len(world.expected), ", ".join("%d %s" % (n, w) for w, n in world.counts.items())))
        print("growth in the second half, KiB:", grown)
        print("all held" if not world.troubles else "%d troubles:\n%s" % (len(world.troubles), "\n".join(world.troubles)))
    finally:
        world.close()
    return 1 if world.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
