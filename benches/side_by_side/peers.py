"""The programs that are measured beside each other: how each shares a shell, and how one looks on.

A peer gets a `Place` and starts its host there; `viewer()` begins another window. Those that are not installed are named
and left out.
"""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import uuid

import figures
from figures import Window, World, now
from link import ADDRESS, Link

# What the shared shell runs itself; it would take the same without being shared.
SHELL = {"sh", "dash", "bash", "seq", "cat", "yes", "date", "clear"}


class Missing(Exception):
    """A program that is not here."""


def need(*programs):
    for program in programs:
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            raise Missing(program + " is not installed")


def version(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return ((done.stdout + done.stderr).strip().splitlines() or ["?"])[0]


class Place(World):
    """A folder, windows and daemons of one peer, near by or at the ends of a link."""

    def __init__(self, mbit=None, delay_ms=0):
        self.link = Link(mbit, delay_ms) if mbit or delay_ms else None
        super().__init__()
        self.mark = "SIDE_BY_SIDE=" + uuid.uuid4().hex
        self.daemons = []

    def __exit__(self, *what):
        super().__exit__(*what)
        for daemon in self.daemons:
            daemon.terminate()
            daemon.wait()
        # Servers that have gone into the background: each is known by the mark in its environment.
        for pid in self.host_pids(shell=True):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        if self.link:
            self.link.close()

    def address(self):
        return ADDRESS["host"] if self.link else "127.0.0.1"

    def argv(self, side, argv):
        return (self.link.inside(side) if self.link else []) + list(argv)

    def env_of(self, side, name):
        key, _, value = self.mark.partition("=")
        return {**self.env(name), **({key: value} if side == "host" else {})}

    def on(self, side, argv, name="x"):
        window = Window(self.argv(side, argv), self.env_of(side, name), self.place)
        self.windows.append(window)
        return window

    def daemon(self, side, argv):
        with open(os.path.join(self.place, "daemon.log"), "ab") as log:
            started = subprocess.Popen(self.argv(side, argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=self.env_of(side, "daemon"), cwd=self.place)
        self.daemons.append(started)
        return started

    def file(self, name, text):
        path = os.path.join(self.place, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def host_pids(self, shell=False):
        """The processes of the host's side, without what the shared shell runs."""
        parents, marked = {}, {daemon.pid for daemon in self.daemons}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open("/proc/%s/stat" % entry) as file:
                    name, fields = file.read().rpartition(")")[::2]
                with open("/proc/%s/environ" % entry, "rb") as file:
                    if self.mark.encode() in file.read():
                        marked.add(int(entry))
            except OSError:
                continue
            parents[int(entry)] = (int(fields.split()[1]), name.partition("(")[2])
        grown = True
        while grown:
            more = {pid for pid, (parent, _) in parents.items() if parent in marked} - marked
            marked |= more
            grown = bool(more)
        return [pid for pid in marked if pid in parents and (shell or parents[pid][1] not in SHELL)]

    def host_cpu(self):
        """CPU seconds of the host's side so far."""
        total = 0.0
        for pid in self.host_pids():
            try:
                total += figures.cpu(pid)
            except OSError:
                continue
        return total

    def host_memory(self):
        """What the host's side has of its own, in MiB: anonymous pages, those that processes share counted once. Pages
        of program files would shrink with each viewer that runs the same program here."""
        kib = 0
        for pid in self.host_pids():
            try:
                with open("/proc/%d/smaps_rollup" % pid) as file:
                    kib += sum(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))
            except OSError:
                continue
        return kib / 1024


class Peer:
    """One program. `views`: others can look on. `far`: over a network, too."""

    name, views, far = "?", True, True

    def __init__(self, place):
        self.place, self.count = place, 0

    @classmethod
    def check(cls):
        """Its version.

        Raises Missing."""
        raise NotImplementedError

    def start(self):
        """Shares a shell; the host's window, at its prompt."""
        raise NotImplementedError

    def viewer(self):
        """Another window that looks on and may type."""
        raise NotImplementedError


class Bare(Peer):
    name, views, far = "bare pty", False, False

    @classmethod
    def check(cls):
        return version("uname", "-sr")

    def start(self):
        return self.place.on("host", ["sh"], "host")


class Tmux(Peer):
    name, far = "tmux", False

    @classmethod
    def check(cls):
        need("tmux")
        return version("tmux", "-V")

    def start(self):
        conf = self.place.file("tmux.conf", "set -g status off\nset -g escape-time 0\n")
        socket_path = os.path.join(self.place.place, "tmux")
        begin = ["tmux", "-u", "-S", socket_path, "-f", conf, "new-session", "-s", "shared", "sh"]
        self.attach = ["tmux", "-u", "-S", socket_path, "attach-session", "-t", "shared"]
        return self.place.on("host", begin, "host")

    def viewer(self):
        return self.place.on("viewer", self.attach)


class SshTmux(Tmux):
    name, far, port = "ssh+tmux", True, None

    @classmethod
    def check(cls):
        need("tmux", "ssh", "sshd", "ssh-keygen")
        return version("ssh", "-V").split(",")[0]

    def start(self):
        host = super().start()
        self.sshd()
        return host

    def sshd(self):
        """A server of our own: its own keys, this user alone, an address that nobody else reaches."""
        place = self.place
        for key in ("serverkey", "userkey"):
            path = os.path.join(place.place, key)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # Where sshd, run by root, wants to be.
        self.port = free_port()
        conf = place.file("sshd.conf", "\n".join([
            "ListenAddress %s:%d" % (place.address(), self.port), "HostKey %s/serverkey" % place.place,
            "AuthorizedKeysFile %s/userkey.pub" % place.place, "PidFile none", "StrictModes no", "UsePAM no",
            "PasswordAuthentication no", "PermitRootLogin prohibit-password", "MaxStartups 100", "UseDNS no",
            "SetEnv %s LANG=C.UTF-8" % place.mark, ""]))
        place.daemon("host", [shutil.which("sshd", path="/usr/sbin:" + os.environ["PATH"]), "-D", "-e", "-f", conf])
        self.ssh = ["ssh", "-F", "none", "-i", os.path.join(place.place, "userkey"), "-p", str(self.port), "-o",
                    "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                    "-o", "LogLevel=ERROR"]
        self.whom = "%s@%s" % (getpass.getuser(), place.address())
        ends = now() + 10
        while subprocess.run(place.argv("viewer", self.ssh + [self.whom, "true"]), capture_output=True).returncode:
            if now() > ends:
                raise SystemExit("no way in by ssh: see %s/daemon.log" % place.place)
            time.sleep(0.1)

    def viewer(self):
        return self.place.on("viewer", self.ssh + ["-tt", self.whom, shlex.join(self.attach)])


class MoshTmux(SshTmux):
    name = "mosh+tmux"

    @classmethod
    def check(cls):
        need("mosh", "mosh-server")
        SshTmux.check()
        return version("mosh", "--version")

    def viewer(self):
        return self.place.on("viewer", ["mosh", "--ssh=" + shlex.join(self.ssh), "--experimental-remote-ip=local",
                                        self.whom, "--", *self.attach])


class CollabP2p(Peer):
    name = "collab-p2p"

    @classmethod
    def check(cls):
        if not os.access(figures.PROGRAM, os.X_OK):
            raise Missing("no program at %s: build it, or name it by COLLAB_P2P" % figures.PROGRAM)
        return version(figures.PROGRAM, "--version")

    def program(self, side, name, *words):
        folder = os.path.join(self.place.place, name)
        return self.place.on(side, [figures.PROGRAM, "--state-dir", folder, *words], name)

    def start(self):
        ticket = os.path.join(self.place.place, "ticket")
        host = self.program("host", "host", "share", "--no-mdns", "--name", "host", "--role", "editor", "--accept",
                            "--control", "auto", "--ticket-file", ticket, "--", "sh")
        self.place.spin(15, lambda: os.path.exists(ticket) and os.path.getsize(ticket) > 0, "a ticket")
        with open(ticket) as file:
            self.ticket = file.read().strip()
        return host

    def viewer(self):
        self.count += 1
        name = "v%d" % self.count
        return self.program("viewer", name, "join", "--no-mdns", "--name", name, self.ticket)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PEERS = [Bare, Tmux, SshTmux, MoshTmux, CollabP2p]
