#!/usr/bin/env python3
"""Records what real programs print, for the tests that play it through a whole session.

    unshare --pid --fork --mount-proc --uts /usr/bin/python3 tests/recordings/record.py [NAME ...]

Each entry of SESSIONS below says how one recording was made: the program, the size of its terminal, and what was
typed when. Without names all are made anew; their bytes differ a little each time, and no test depends on that.
The result is NAME.cast beside this file, as asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): a header,
then `[seconds, "o", text]` for output and `[seconds, "r", "COLSxROWS"]` for a new size. Output that is no UTF-8 is
`[seconds, "h", hex]`, which asciicast does not have.

Programs run in a bare environment: a home below /tmp, fixed prompts, no variables of whoever records. Process and
host names are visible to htop and tmux, hence `unshare`, where all but the recorder is hidden. Python's standard
library is all that is needed; programs that are recorded must be installed. Needs root for `unshare` and apt.
"""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = "/tmp/ada"
QUIET = 0.35
LONGEST = 40.0
MAX_BYTES = 120_000

UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"
BASH = ["bash", "--norc", "--noprofile", "-i"]


class Resize:
    def __init__(self, cols, rows):
        self.cols, self.rows = cols, rows


class Wait:
    def __init__(self, seconds):
        self.seconds = seconds


def storm(*sizes):
    return [Resize(cols, rows) for cols, rows in sizes]


def script(text):
    """A program that prints: shell text with printf, run without an interactive shell."""
    return ["sh", "-c", text]


def python(text):
    return ["/usr/bin/python3", "-c", text]


# What is typed; a str is sent and waited for until the program is quiet, a Wait waits, a Resize changes the size.
SESSIONS = {
    # --- shells ---
    "bash-line-editing": (80, 24, BASH, [
        "echo one two three", "\x01", "\x1bf\x1bf", " and", "\x05 four\r", UP, "\x1b\x7f\x1b\x7f", "\x19\r",
        "ls /et\t\t", "c/host\t\r", "\x12two", "\r", "printf 'a\\nb\\n'\r", UP + UP, "\x0b", "\x15", "echo " + "ab" * 3,
        LEFT * 4, "X", "\x04", "\x14\r", "false || echo $?\r", "exit\r"]),
    "bash-long-command": (32, 10, BASH, [
        "echo the quick brown fox jumps over the lazy dog", LEFT * 20, "very ", "\x01", "true; ", "\x05", "\x17" * 3,
        "\r", UP, LEFT * 30 + "\x7f\x7f", "\x0c", "\r", "echo 漢字漢字漢字漢字漢字漢字漢字", LEFT * 5, "x", "\x7f\x7f",
        "\r", "exit\r"]),
    "bash-colour-prompt": (60, 12, BASH, [
        "PS1='\\[\\e[1;32m\\]ada\\[\\e[m\\]:\\[\\e[34m\\]\\W\\[\\e[m\\]\\$ '\r", "mkdir -p sub; cd sub\r",
        "ls --color=always -la /usr | head -8\r", "clear\r", "grep --color=always -n ro /etc/passwd | head -3\r",
        "for i in 1 2 3; do echo $i; done\r", "exit\r"]),
    "dash-session": (80, 24, ["dash", "-i"], [
        "echo hello\r", "x=5; echo $((x * 7))\r", "cat <<E\rone\rtwo\rE\r", "abc\x7f\x7f\x7fecho back\r",
        "cat /nonexistent\r", "sleep 5\r", "\x03", "\x04"]),
    # --- editors ---
    "vim-scroll": (80, 24, ["vim", "-u", "NONE", "-N", "-i", "NONE", "lines.txt"], [
        "\x04", "\x04", "\x15", "j" * 30, "\x05" * 10, "\x19" * 6, "G", "gg", "\x06", "\x06", "\x02", "/line 77\r", "n",
        "zz", "zt", "zb", ":set nu\r", "\x04", ":q!\r"]),
    "vim-splits": (80, 24, ["vim", "-u", "NONE", "-N", "-i", "NONE", "lines.txt"], [
        ":vsplit\r", "\x04", "\x17w", "G", ":split\r", "\x04", "\x05" * 5, "\x17j", "gg", "\x17+", "\x17=", "\x17o",
        "u", ":qa!\r"]),
    "vim-insert": (60, 16, ["vim", "-u", "NONE", "-N", "-i", "NONE", "+syntax on", "+set nu ruler hlsearch", "code.c"], [
        "ofor (i = 0; i < 3; i++) {\rprintf(\"%d\\n\", i);\r}\x1b", "O/* a comment */\x1b", "dd", "p", "P", "u", "\x12",
        "J", ">>", "yyp", "/main\r", ":s/main/start/\r", "ggVG=", "xx", "R12345\x1b", "vee", "d", ":q!\r"]),
    "vim-cjk": (50, 14, ["vim", "-u", "NONE", "-N", "-i", "NONE", "cjk.txt"], [
        "j", "l" * 5, "i漢", "\x1b", "x", "$", "a終わり\x1b", "0", "i \x1b", "i \x1b", "dd", "P", "r字", "~",
        "A👩\u200d👩\u200d👧 é e\u0301\x1b", "0", "w" * 4, "x", ":set nowrap\r", "zl" * 7, ":q!\r"]),
    "vim-resize": (80, 24, ["vim", "-u", "NONE", "-N", "-i", "NONE", "+set nu", "cjk.txt"], [
        *storm((60, 20), (40, 10), (20, 6), (11, 4), (33, 12), (100, 30), (80, 24)), "Go漢字\x1b",
        *storm((13, 5), (14, 5), (15, 5), (80, 24)), ":q!\r"]),
    "nano": (70, 18, ["nano", "-I", "lines.txt"], [
        "inserted\r", DOWN * 20, "\x0b\x0b", "\x15", "\x17line 5\r", "\x16", "\x16", "\x19", "\x18", "n"]),
    # --- pagers, manuals ---
    "less-paging": (80, 24, ["less", "-N", "lines.txt"], [
        " ", " ", "b", "j" * 12, "k" * 7, "G", "g", "d", "u", "/line 15\r", "n", "n", "N", "&7\r", "&\r", "q"]),
    "less-long-lines": (60, 14, ["less", "-R", "-S", "wide.txt"], [
        RIGHT, RIGHT, LEFT, "/zebra\r", "-S\r", " ", "b", "q"]),
    "man": (72, 22, ["man", "-P", "less", "true"], [" ", " ", "b", "/help\r", "q"]),
    # --- whole-screen programs ---
    "htop": (80, 24, ["htop", "-d", "5"], [Wait(1.6), DOWN, DOWN, "t", "\x1bOQ", "\x1b", "H", "I", Wait(1.2), "q"]),
    "top": (80, 24, ["top", "-d", "0.7"], [Wait(1.6), "1", "V", "z", Wait(1.0), "q"]),
    "mc": (80, 24, ["mc", "-u", "-b"], [DOWN * 3, "\t", DOWN, "\x1b9", "\x1b\x1b", "\x1b3", "\x1b0", "ls\r", "\x1b0", "\r"]),
    "mc-colours": (76, 20, ["mc", "-u", "-S", "default"], [DOWN * 4, "\x1b4", "typed", DOWN, "\x1b0", "n", "\x1b0", "\r"]),
    "dialog": (64, 20, ["dialog", "--title", "Choose", "--menu", "One of these:", "14", "40", "6", "1", "first", "2",
                        "second 漢字", "3", "third", "4", "fourth"], [DOWN, DOWN, UP, "\t", "\t", "\r"]),
    "whiptail": (64, 18, script("for i in 5 25 50 75 100; do echo $i; sleep 0.1; done | whiptail --gauge 'Copying…' 8 50 0;"
                                " whiptail --yesno 'Go on?' 8 40"), [Wait(1.0), "\t", "\t", "\r"]),
    "watch": (60, 12, ["watch", "-n", "0.4", "-d", "-c", "date +%N; printf '\\033[31mred\\033[m'"], [Wait(2.2), "\x03"]),
    "tmux-inside": (80, 24, ["tmux", "-L", "recording", "-f", "/dev/null", "new-session", "dash -i"], [
        "echo in tmux\r", "\x02\"", "seq 30\r", "\x02%", "echo right\r", "\x02\x1b[A", "ls --color /usr\r", "\x02z",
        "\x02z", "\x02[", UP * 5, "q", "\x02 ", "exit\r", "exit\r", "exit\r"]),
    "alternate-screen": (60, 14, BASH, [
        "seq 20\r", "less lines.txt\r", "G", "q", "echo between\r", "vim -u NONE -N -i NONE lines.txt\r", ":q\r",
        "printf '\\033[?1049hinside\\033[5;5Hthere'; sleep 0.6; printf '\\033[?1049l'\r",
        "printf '\\033[?47hold\\033[?47l\\033[?1047hold\\033[?1047l'\r", "exit\r"]),
    # --- builds, version control, interpreters ---
    "gcc-errors": (80, 24, ["gcc", "-Wall", "-Wextra", "-fdiagnostics-color=always", "-c", "bad.c", "-o", "/dev/null"], []),
    "cargo-build": (80, 24, script("cd demo && cargo build --offline --color always; cargo test --offline --color always"), []),
    "git-log": (80, 24, ["git", "-c", "core.pager=less -R", "log", "--graph", "--color=always", "--stat", "--decorate"],
                [" ", " ", "b", "/two\r", "q"]),
    "git-diff": (80, 24, ["git", "--no-pager", "diff", "--color=always", "--color-words", "HEAD~2"], []),
    "git-add-patch": (80, 24, ["git", "-c", "color.ui=always", "add", "-p"], ["?\r", "n\r", "y\r", "q\r"]),
    "python-repl": (80, 24, ["/usr/bin/python3", "-q"], [
        "1 + 2\r", "[n ** 2 for n in range(40)]\r", "def f(x):\r    return x / 0\r\r", "f(1)\r", "'漢字é' * 5\r", UP,
        "\x01print(", "\x05)\r", "import sy\t\r", "sys.ver\t\r", "x = \x1b[200~pasted\x1b[201~\r", "exit()\r"]),
    # --- progress ---
    "curl-progress": (80, 24, None, []),
    "progress-pip": (80, 24, python("""
import sys, time
for name, size in (('alpha', 40), ('beta-long-name', 25)):
    print(f'Collecting {name}')
    for n in range(size + 1):
        bar = '━' * n + '\\x1b[38;5;237m' + '━' * (size - n)
        print(f'\\r\\x1b[?25l     \\x1b[38;2;249;38;114m{bar}\\x1b[0m \\x1b[32m{n/10:.1f}/{size/10:.1f} MB\\x1b[0m'
              f' \\x1b[31m{n*3%17+1}.{n%10} MB/s\\x1b[0m eta \\x1b[36m0:00:{(size-n)//9:02}\\x1b[0m', end='', flush=True)
        time.sleep(0.004)
    print('\\x1b[?25h')
print('Successfully installed alpha-1.0 beta-long-name-2.3')
"""), []),
    "progress-lines": (72, 16, python("""
import time
names = ['layer one', 'layer two', 'layer three', 'layer four']
print('\\n' * len(names), end='')
for step in range(60):
    print(f'\\x1b[{len(names)}A', end='')
    for n, name in enumerate(names):
        part = min(100, step * (n + 1))
        spin = '⠋⠙⠹⠸⠼⠴⠦⠧'[step % 8] if part < 100 else '✔'
        print(f'\\r\\x1b[2K{spin} {name:<12} [{"#" * (part // 4):<25}] {part:3}%')
    if step % 20 == 10:
        print(f'\\x1b[{len(names)}A\\x1b[L\\x1b[33mwarning:\\x1b[m something at {step}\\x1b[{len(names)}B\\r\\n', end='')
    time.sleep(0.004)
"""), []),
    "progress-carriage-return": (40, 8, script(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf '\\r%3d%% a line that is longer than the screen is wide, %d' "
        "$((i*8)) $i; sleep 0.02; done; printf '\\r\\033[Kdone\\n'; printf 'abc\\b\\b\\033[K-\\n'"), []),
    "apt-install": (80, 24, script(
        "apt-get -o Dpkg::Progress-Fancy=1 -o APT::Color=1 install -y ./greeting_1.0_all.deb;"
        " apt-get -o Dpkg::Progress-Fancy=1 purge -y greeting"), []),
    "dpkg-list": (100, 30, script("dpkg -i greeting_1.0_all.deb; dpkg -s greeting; dpkg -l 'greet*' 'base-f*'; dpkg -P greeting"), []),
    # --- text ---
    "seq-large": (80, 24, ["seq", "9000"], []),
    "cjk": (41, 12, ["cat", "cjk.txt", "cjk.txt"], []),
    "emoji": (40, 16, ["cat", "emoji.txt"], []),
    "combining-marks": (40, 20, ["cat", "marks.txt"], []),
    "wide-at-the-edge": (21, 10, python("""
w = lambda *t: print(*t, sep='', end='', flush=True)
for shift in range(3):
    w('x' * shift, '漢字' * 12, '\\r\\n')
w('\\x1b[?7l', '漢' * 15, 'z', '\\x1b[?7h\\r\\n')
w('\\x1b[3;20H漢\\x1b[3;21H字\\x1b[4;21Hab\\x1b[5;20H漢\\b\\bx\\x1b[6;1H漢\\x1b[6;2Hy\\x1b[7;1H漢字\\x1b[7;2H\\x1b[K')
w('\\x1b[8;1H漢字漢字\\x1b[8;3H\\x1b[1P\\x1b[8;2H\\x1b[1@-\\x1b[9;2H漢字\\x1b[9;3H\\x1b[2X')
w('\\x1b[10;1H', '한글' * 8, 'ﾊﾝｶｸ', '　')
"""), []),
    "tabs": (44, 12, python("""
w = lambda *t: print(*t, sep='', end='', flush=True)
w('a\\tb\\tc\\r\\n\\t\\t\\t\\t\\t\\tend\\r\\n', '漢\\tx\\r\\n')
w('\\x1b[3g\\x1b[5G\\x1bH\\x1b[11G\\x1bH\\x1b[30G\\x1bH\\r1\\t2\\t3\\t4\\t5\\r\\n')
w('\\x1b[40Gz\\x1b[2Zy\\x1b[Zx\\r\\n', 'abcdefghij\\r\\tX\\r\\n', '\\x1b[2Itwo\\r\\n')
w('\\x1b[5G\\x1b[g\\r1\\t2\\t3\\r\\n', 'long' * 11, '\\tq')
"""), []),
    "line-drawing": (40, 12, python("""
w = lambda *t: print(*t, sep='', end='', flush=True)
w('\\x1b(0lqqqqwqqqqk\\x1b(B\\r\\n\\x1b(0x\\x1b(B one\\x1b(0x\\x1b(B two\\x1b(0x\\x1b(B\\r\\n\\x1b(0tqqqqnqqqqu\\r\\n')
w('mqqqqvqqqqj\\x1b(B\\r\\n', '\\x1b)0ascii \\x0e`abcdefghijklmno\\x0f ascii\\r\\n', '\\x1b(0pqrstuvwxyz{|}~\\x1b(B\\r\\n')
w('\\x1b7\\x1b(0\\x1b8q\\r\\n', '│┌─┐└─┘╔═╗█▓▒░▁▂▃▄\\r\\n', '\\x1b(Apound # \\x1b(B#')
"""), []),
    "insert-delete": (40, 14, python("""
import time
w = lambda *t: (print(*t, sep='', end='', flush=True), time.sleep(0.003))
for n in range(14): w(f'\\x1b[{n+1};1H{n:2} the quick brown fox jumps')
for n in range(2, 13):
    w(f'\\x1b[{n};{n}H\\x1b[{n}@INS'); w(f'\\x1b[{n};{n+9}H\\x1b[{n//2+1}P'); w(f'\\x1b[{n};{2*n}H\\x1b[3X')
w('\\x1b[5;5H\\x1b[2L'); w('\\x1b[8;1H\\x1b[3M'); w('\\x1b[3;10H\\x1b[1K'); w('\\x1b[4;10H\\x1b[K'); w('\\x1b[6;1H\\x1b[2K')
w('\\x1b[4h\\x1b[10;3Hinserted \\x1b[4l'); w('\\x1b[12;1Hx\\x1b[20b'); w('\\x1b[41m\\x1b[13;4H\\x1b[K\\x1b[2;4H\\x1b[2L\\x1b[m')
w('\\x1b[9;1H\\x1b[J'); w('\\x1b[2S'); w('\\x1b[3T'); w('\\x1b[7;7H\\x1b[1J')
"""), []),
    "scroll-regions": (50, 16, python("""
import time
w = lambda *t: (print(*t, sep='', end='', flush=True), time.sleep(0.002))
for n in range(16): w(f'\\x1b[{n+1};1Hrow {n+1}')
w('\\x1b[4;11r\\x1b[11;1H')
for n in range(25): w(f'\\r\\nlog {n} ', '=' * (n % 9))
w('\\x1b[4;1H')
for n in range(6): w(f'\\x1bMback {n}\\r')
w('\\x1b[?6h\\x1b[1;1Horigin\\x1b[99;1Hlast\\x1b[?6l\\x1b[1;1Htop')
w('\\x1b[2S\\x1b[1T\\x1b[6;1H\\x1b[L\\x1b[9;1H\\x1b[2M\\x1bD\\x1bE\\x1b[r\\x1b[16;1H')
for n in range(5): w(f'\\n{n}')
w('\\x1b[2;15r\\x1b[15;1H'); w('漢字\\n' * 9); w('\\x1b[r\\x1b[8;8H\\x1b[?69hend')
"""), []),
    "synchronized-update": (60, 14, python("""
import time
w = lambda *t: (print(*t, sep='', end='', flush=True), time.sleep(0.003))
w('\\x1b[?1049h')
for n in range(24):
    w('\\x1b[?2026h\\x1b[2J\\x1b[H')
    for row in range(12): print(f'\\x1b[{row+1};{(n+row)%40+1}H\\x1b[{31+row%7}mframe {n} row {row}\\x1b[m', end='')
    w('\\x1b[?2026l')
w('\\x1b[?2026$p\\x1b[?2026hleft open'); time.sleep(0.4)
w('\\x1b[H after \\x1b[?1049l\\x1b[?2026h nested \\x1b[?2026h once\\x1b[?2026l\\r\\n')
"""), [Wait(1.0)]),
    "colours": (72, 20, python("""
w = lambda *t: print(*t, sep='', end='', flush=True)
for n in range(256): w(f'\\x1b[48;5;{n}m {n:3}', '\\x1b[m\\r\\n' if n % 16 == 15 else '')
for n in range(0, 72): w(f'\\x1b[38;2;{n*3};{255-n*3};99;48:2::{n}:0:{n*2}m#')
w('\\x1b[m\\r\\n')
for n in (1, 2, 3, 4, 5, 7, 8, 9, 21, '4:2', '4:3', '4:4', '4:5', '58:5:9;4', '58:2::1:2:3;4:3'): w(f'\\x1b[{n}mabc\\x1b[m ')
w('\\r\\n\\x1b[1;3;7;9;31;102mall\\x1b[22mb\\x1b[23mi\\x1b[27mv\\x1b[29ms\\x1b[39mf\\x1b[49mb\\x1b[m')
"""), []),
    "titles-links-bells": (60, 10, python("""
w = lambda *t: print(*t, sep='', end='', flush=True)
w('\\x1b]0;a title\\x07\\x1b]2;漢字 title\\x1b\\\\\\x07one\\x07\\r\\n')
w('\\x1b]8;;https://example.org/\\x1b\\\\a link\\x1b]8;;\\x1b\\\\ after\\r\\n\\x1b]7;file:///tmp\\x07\\x1b]1337;A=b\\x07')
w('\\x1bPq#0;2;0;0;0#0~~\\x1b\\\\\\x1b_Gi=1;AAAA\\x1b\\\\\\x1b^pm\\x1b\\\\done\\r\\n')
w('\\x1b[22;0t\\x1b]2;inner\\x07\\x1b[23;0t\\x1b[3 qbar\\x1b[0 q\\x1b[?25l\\x1b[?25h\\x1b[?1000;1006h\\x1b[?1000;1006l')
w('\\x1b[?2004h\\x1b[?1h\\x1b=\\x1b[!p\\x1b[?5h\\x1b[?5l\\r\\nend')
"""), []),
    "clear-and-reset": (60, 14, BASH, ["seq 30\r", "clear\r", "echo top\r", "\x0c", "tput cup 8 10; echo here\r", "reset\r",
                                      "printf '\\033#8'\r", "printf '\\033c'\r", "echo new\r", "exit\r"]),
    "binary-noise": (60, 16, python("""
import sys
state, out = 7, bytearray()
for _ in range(5000):
    state = (state * 1103515245 + 12345) % 2**31
    out.append(state >> 16 & 255)
sys.stdout.buffer.write(bytes(out)); sys.stdout.flush()
"""), []),
    # --- resizes ---
    "resize-shell": (80, 24, BASH, [
        "seq 40\r", *storm((60, 20), (40, 12), (20, 8), (12, 4), (30, 9), (99, 33)), "echo after\r",
        "cat wide.txt\r", *storm((50, 10), (49, 11), (48, 12), (47, 13), (25, 6), (80, 24)), "ls --color=always /usr/bin | head -50\r",
        *storm((10, 2), (11, 3), (200, 50), (10, 50), (120, 2), (80, 24)), "exit\r"]),
    "resize-wide": (40, 12, BASH, [
        "cat cjk.txt emoji.txt\r", *storm(*[(cols, 12) for cols in range(39, 9, -3)], (11, 3), (10, 2), (13, 4), (40, 12)),
        "echo 漢字漢字漢字漢字漢字漢字漢字漢字漢字", *storm((21, 6), (20, 6), (19, 6), (18, 6), (17, 6), (11, 2), (60, 20)), "\r",
        *storm((1, 1), (2, 2), (40, 12)), "exit\r"]),
    "resize-less": (80, 24, ["less", "-N", "cjk.txt", "lines.txt"], [
        *storm((40, 12), (20, 6), (80, 30)), " ", *storm((79, 29), (78, 28), (10, 3), (80, 24)), ":n\r", " ", Resize(50, 10), "q"]),
}


def fill_home():
    shutil.rmtree(HOME, ignore_errors=True)
    os.makedirs(HOME)
    os.chdir(HOME)

    def write(name, text):
        os.makedirs(os.path.dirname(os.path.join(HOME, name)), exist_ok=True)
        with open(os.path.join(HOME, name), "w", encoding="utf-8") as file:
            file.write(text)

    write("lines.txt", "".join(f"line {n} of the file: {'lorem ipsum dolor sit amet '[n % 20:] * (n % 3)}\n"
                               for n in range(1, 181)))
    write("wide.txt", "".join(f"{n:3} " + "the zebra crossed the street and went on to the market square " * (n % 4 + 1) + "\n"
                              for n in range(16)))
    write("code.c", '#include <stdio.h>\n\nint main(void)\n{\n\tint i = 0; /* count */\n\tprintf("hello %d\\n", i);\n'
                    '\treturn 0;\n}\n')
    write("bad.c", '#include <stdio.h>\nstruct s { int a; };\nint f(int x) { return y + x }\nint main(void) {\n'
                   '  int unused = "text";\n  struct s v = { .b = 1 };\n  printf("%s\\n", 3);\n  if (v.a = 2) return;\n}\n')
    write("cjk.txt", "".join(line + "\n" for line in (
        "漢字とかなの混ざった長い一行が画面の右端で折り返されるところを見る。",
        "中文字符在屏幕右边缘换行，混合 ASCII text 和全角标点：「引号」。",
        "한국어 문장도 두 칸 너비의 글자로 이루어져 있습니다. 조합형: \u1112\u1161\u11ab\u1100\u1173\u11af",
        "半角ｶﾀｶﾅと全角ＡＢＣ、そして a漢b字c d語e",
        "x漢字x漢字x漢字x漢字x漢字x漢字x漢字x漢字x漢字x漢字")))
    write("emoji.txt", "".join(line + "\n" for line in (
        "plain 😀😃😄 wide", "zwj 👩\u200d👩\u200d👧\u200d👦 👩\u200d💻 🏳\ufe0f\u200d🌈 end", "tones 👍🏻👍🏽👍🏿 end",
        "flags 🇩🇪🇯🇵🇺🇳 end", "vs16 ❤\ufe0f ☎\ufe0f ✈\ufe0f vs15 ❤\ufe0e end", "keycaps 1\ufe0f\u20e3 #\ufe0f\u20e3 end",
        "ambiguous ①②③ ±×÷ αβγ ♥♦♣♠", "😀" * 23 + "x", "a" + "👩\u200d🚀" * 12)))
    write("marks.txt", "".join(line + "\n" for line in (
        "e\u0301 a\u0308o\u0308u\u0308 n\u0303 c\u0327", "Z\u0351\u036b\u0343\u036a\u0302a\u0322\u0334\u0322l\u0489g\u0348\u0349o\u0321",
        "ไทย ภาษาไทย กำลัง", "हिन्दी देवनागरी क्षत्रिय", "עִבְרִית וְנִקּוּד", "العَرَبِيَّة", "漢\u0301字\u0308",
        "\u0301alone at the start", "zero\u200bwidth\u200cjoin\u200dsoft\u00adhyphen\u2060word", "tie o\u0361o end",
        "e\u0301" * 45, "rtl \u202emark\u202c end")))
    write("demo/Cargo.toml", '[package]\nname = "demo"\nversion = "0.1.0"\nedition = "2021"\n')
    write("demo/src/main.rs", 'use std::fmt;\n\nfn main() {\n    let unused = 1;\n    let mut v = vec![1, 2];\n    println!("{}", '
                              'sum(&v));\n}\n\nfn sum(list: &[i32]) -> i32 {\n    list.iter().sum()\n}\n\n#[test]\nfn adds() {\n'
                              '    assert_eq!(sum(&[1, 2]), 3);\n}\n\n#[test]\nfn fails() {\n    assert_eq!(sum(&[1]), 2);\n}\n')
    git_history(write)
    write("greeting/DEBIAN/control", "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Ada <ada@example.org>\n"
                                     "Description: says hello\n A package to be installed and removed.\n")
    write("greeting/usr/share/greeting/hello", "hello\n")
    run("dpkg-deb", "--build", "greeting", "greeting_1.0_all.deb")


def git_history(write):
    run("git", "init", "-q", "-b", "main", ".")
    for n, text in enumerate(["one two three\n", "one 2 three\nfour\n", "one 2 three\nfour 漢字\nfive\n", "six\n" * 12]):
        write(f"notes{n % 2}.txt", text)
        run("git", "add", f"notes{n % 2}.txt")
        run("git", "commit", "-q", "-m", f"Number {n}: the two of us", "--date", f"2020-01-0{n + 1}T12:00:00Z")
        if n == 1:
            run("git", "checkout", "-q", "-b", "side")
            write("side.txt", "at the side\n")
            run("git", "add", "side.txt")
            run("git", "commit", "-q", "-m", "Beside", "--date", "2020-01-02T13:00:00Z")
            run("git", "checkout", "-q", "main")
    run("git", "merge", "-q", "--no-edit", "side")
    write("notes1.txt", "six\n" * 5 + "seven\n" + "six\n" * 5 + "eight\n")


def environment():
    env = {"HOME": HOME, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TERM": "xterm-256color",
           "LANG": "C.UTF-8", "PS1": "$ ", "PS2": "> ", "USER": "ada", "LOGNAME": "ada", "SHELL": "/bin/sh",
           "COLORTERM": "truecolor", "TZ": "UTC", "DEBIAN_FRONTEND": "noninteractive", "HISTFILE": "/dev/null",
           "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org", "GIT_COMMITTER_NAME": "Ada",
           "GIT_COMMITTER_EMAIL": "ada@example.org", "GIT_COMMITTER_DATE": "2020-01-09T12:00:00Z",
           "GIT_CONFIG_NOSYSTEM": "1", "MC_XDG_OPEN": "true"}
    rustup = os.path.expanduser("~root/.rustup")
    toolchains = os.path.join(rustup, "toolchains")
    if os.path.isdir(toolchains):
        newest = sorted(os.listdir(toolchains))[0]
        os.makedirs(f"{HOME}/bin", exist_ok=True)
        for tool in ("cargo", "rustc"):
            link = f"{HOME}/bin/{tool}"
            if not os.path.lexists(link):
                os.symlink(os.path.join(toolchains, newest, "bin", tool), link)
        env["PATH"] = f"{HOME}/bin:" + env["PATH"]
    return env


def run(*argv):
    subprocess.run(argv, cwd=HOME, env=environment(), check=True, stdout=subprocess.DEVNULL)


def set_size(fd, cols, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Recorder:
    """One program on a terminal of its own, and what happened there."""

    def __init__(self, cols, rows, argv):
        self.events, self.total, self.open = [], 0, True
        self.decoder = codecs.getincrementaldecoder("utf-8")("strict")
        parent, child = pty.openpty()
        set_size(child, cols, rows)
        self.process = subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, cwd=HOME, env=environment(),
                                        start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(child)
        self.fd, self.begun = parent, time.monotonic()

    def now(self):
        return round(time.monotonic() - self.begun, 3)

    def read(self, quiet, least=0.0):
        """Takes output until it has been quiet for so long, and at least so long in all."""
        until = time.monotonic() + least
        while self.open and time.monotonic() - self.begun < LONGEST and self.total < MAX_BYTES:
            rest = max(quiet, until - time.monotonic())
            if not select.select([self.fd], [], [], rest)[0]:
                return
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                self.open = False
                return
            self.total += len(data)
            self.keep(data)

    def keep(self, data):
        try:
            text = self.decoder.decode(data)
            if text:
                self.events.append([self.now(), "o", text])
        except UnicodeDecodeError:
            held = self.decoder.getstate()[0]
            self.decoder.reset()
            self.events.append([self.now(), "h", (held + data).hex()])

    def play(self, steps):
        self.read(QUIET, 0.2)
        for step in steps:
            if not self.open:
                break
            if isinstance(step, Resize):
                set_size(self.fd, step.cols, step.rows)
                self.events.append([self.now(), "r", f"{step.cols}x{step.rows}"])
                self.read(0.08)
            elif isinstance(step, Wait):
                self.read(QUIET, step.seconds)
            else:
                os.write(self.fd, step.encode())
                self.read(QUIET)
        # What is left ends by itself: a program that waits for keys is told to end.
        while self.open and self.process.poll() is None and time.monotonic() - self.begun < LONGEST:
            self.read(1.0)
            if not steps:
                continue
            os.killpg(self.process.pid, signal.SIGTERM)
            steps = []
        self.read(0.1)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)


def merged(events):
    """Output of the same moment becomes one event: the tests cut it themselves."""
    out = []
    for at, kind, data in events:
        if out and kind == "o" and out[-1][1] == "o" and at - out[-1][0] < 0.05:
            out[-1][2] += data
        else:
            out.append([at, kind, data])
    return out


class Server:
    """Serves one slow file to curl on the loopback, for as long as it is asked."""

    def __enter__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 8099))
        self.socket.listen()
        self.child = os.fork()
        if self.child == 0:
            while True:
                peer, _ = self.socket.accept()
                peer.recv(4096)
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 600000\r\n\r\n")
                for _ in range(60):
                    peer.sendall(b"x" * 10000)
                    time.sleep(0.03)
                peer.close()
        return self

    def __exit__(self, *_):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        self.socket.close()


def record(name):
    cols, rows, argv, steps = SESSIONS[name]
    fill_home()
    if name == "curl-progress":
        with Server():
            url = "http://127.0.0.1:8099/file"
            recorder = Recorder(cols, rows, script(f"curl -o /dev/null {url}; curl -# -o /dev/null {url}"))
            recorder.play(steps)
    else:
        recorder = Recorder(cols, rows, argv)
        recorder.play(steps)
    header = {"version": 2, "width": cols, "height": rows, "title": name, "env": {"TERM": "xterm-256color"}}
    path = os.path.join(HERE, f"{name}.cast")
    with open(path, "w", encoding="utf-8") as file:
        for line in [header, *merged(recorder.events)]:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{name}: {recorder.total} bytes, {os.path.getsize(path)} on disk, status {recorder.process.returncode}")


def main():
    names = sys.argv[1:] or list(SESSIONS)
    unknown = [name for name in names if name not in SESSIONS]
    if unknown:
        sys.exit(f"no such recording: {', '.join(unknown)}")
    if os.getpid() > 50:
        sys.exit("run this in namespaces of its own, as the first lines of this file say")
    socket.sethostname("machine")
    for name in names:
        record(name)
    shutil.rmtree(HOME, ignore_errors=True)
    leftovers = [name for name in names
                 if re.search(r"/root|/work|registry|pyenv", open(os.path.join(HERE, f"{name}.cast"), encoding="utf-8").read())]
    if leftovers:
        print(f"look into these, they name this machine: {', '.join(leftovers)}")


if __name__ == "__main__":
    main()
