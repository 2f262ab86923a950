#!/usr/bin/env python3
"""The yardstick: this program and its peers side by side, on one machine, in one run. Python's own library only.

    cargo build --release
    python3 benches/side_by_side [--json FILE] [--only keys,join,...] [--peers collab-p2p,tmux] [--quick]

$COLLAB_P2P names the program. Peers that are installed take part: a bare PTY, tmux on one machine, ssh+tmux, mosh+tmux.
Every window is an 80x24 PTY of its own. Each measure goes through the peers one after the other, so that all of them
meet the same machine; read the others' figures of the same run beside ours.

keys       a key at one viewer until its glyph is on another viewer's screen; from the host; on a bare PTY
join       from starting a viewer until a word of the screen shows
flood      `seq 1 2000000` with one viewer: its own duration against a bare PTY's, CPU seconds of the host's side, and
           from its end until the viewer shows what follows
interrupt  endless `yes`; Ctrl-C at a viewer until the prompt shows at everybody
slow       the same with the viewers behind a link of 20 Mbit/s
memory     the host's side's own memory with 0, 1 and 20 viewers
idle       CPU of the host's side over idle seconds with 1 and with 20 viewers
echo       a key until it shows on the typist's own screen, 50 ms away (mosh guesses it beforehand): for information

Measures through a link need root. The last lines hold our figures against their goals.
"""

import argparse
import json
import os
import random
import statistics
import string
import sys

sys.dont_write_bytecode = True
sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), os.path.dirname(os.path.abspath(__file__))]

import figures  # noqa: E402
from figures import now, spread  # noqa: E402
from link import Unfit  # noqa: E402
from peers import PEERS, Bare, CollabP2p, Missing, Place  # noqa: E402

PROMPT = "READY>"
SLOW_MBIT, FAR_MS = 20, 50

# Of which figure of ours, its limit, its unit.
GOALS = [
    ("key, viewer to viewer, p50", "key_viewer_to_viewer_ms.p50", 1.0, "ms"),
    ("join with the whole screen, p50", "join_ms.p50", 150.0, "ms"),
    ("flood against a bare PTY", "flood_ratio", 1.15, "x"),
    ("last screen after the flood", "flood_end_ms", 100.0, "ms"),
    ("interrupt seen by all", "interrupt_ms.max", 100.0, "ms"),
    ("interrupt seen by all, 20 Mbit/s", "interrupt_slow_ms.max", 100.0, "ms"),
    ("more host memory for 20 viewers", "memory_more_mib", 15.0, "MiB"),
    ("idle host with 1 viewer", "idle_1_percent", 0.5, "%"),
    ("idle host with 20 viewers", "idle_20_percent", 2.0, "%"),
]


def shows(window, text):
    return lambda: text.encode() in window.text()


def begun(place, kind, viewers=0):
    """A peer with a host at its prompt and so many viewers that see it."""
    peer = kind(place)
    host = peer.start()
    place.spin(20, shows(host, PROMPT), "the prompt at the host of %s" % kind.name)
    seen = [joined(place, peer) for _ in range(viewers)]
    return peer, host, seen


def joined(place, peer):
    viewer = peer.viewer()
    place.spin(30, shows(viewer, PROMPT), "the prompt at a viewer of %s" % peer.name)
    return viewer


def typed(place, typist, watcher, count, first):
    """Milliseconds from each key at one window until its glyph is on the other; every glyph is new to the screen."""
    times = []
    for number in range(count):
        key = chr(0x4E00 + first + number)
        watcher.forget()
        pressed = now()
        typist.type(key)
        stamp = place.spin(10, lambda: key.encode() in watcher.seen, "a key at the other window")
        times.append((stamp - pressed) * 1000)
        place.spin(random.uniform(0.02, 0.05))
        if number % 25 == 24:
            typist.type("\r")
            place.spin(0.1)
    return spread(times)


def keys(kind, quick):
    count = 30 if quick else 200
    with Place() as place:
        _, host, seen = begun(place, kind, 2 if kind.views else 0)
        host.type("clear; cat\r")
        place.spin(1.5)
        if not kind.views:
            return {"key_own_ms": typed(place, host, host, count, 0)}
        one, other = seen
        from_host = typed(place, host, other, count, 0)
        return {"key_host_to_viewer_ms": from_host, "key_viewer_to_viewer_ms": typed(place, one, other, count, 500)}


def join(kind, quick):
    if not kind.views:
        return {}
    times = []
    with Place() as place:
        peer, host, _ = begun(place, kind)
        for number in range(4 if quick else 20):
            word = "".join(random.sample(string.ascii_uppercase, 12))
            done = os.path.join(place.place, "word%d" % number)
            host.type("clear; echo %s''%s; : > %s\r" % (word[:5], word[5:], done))
            place.spin(5, lambda: os.path.exists(done), "the word at the host")
            place.spin(0.3)
            viewer = peer.viewer()
            stamp = place.spin(20, shows(viewer, word), "the word at the viewer")
            times.append((stamp - viewer.begun) * 1000)
            place.drop(viewer)
            host.forget()
    return {"join_ms": spread(times)}


def flood(kind, quick):
    lines, rounds = (200_000, 1) if quick else (2_000_000, 3)
    seconds, cpu, ends = [], [], []
    for _ in range(rounds):
        with Place() as place:
            _, host, seen = begun(place, kind, 1 if kind.views else 0)
            before = place.host_cpu()
            took, end = figures.flood(place, host, lines, seen[0] if seen else None)
            seconds.append(took)
            cpu.append(place.host_cpu() - before)
            ends.append(end)
    out = {"flood_s": statistics.median(seconds), "flood_host_cpu_s": statistics.median(cpu)}
    if kind.views:
        out["flood_end_ms"] = statistics.median(ends)
    return out


def interrupted(kind, quick, **link):
    """Milliseconds from Ctrl-C at the first viewer until the host and all viewers show the prompt."""
    times = []
    with Place(**link) as place:
        _, host, seen = begun(place, kind, 2)
        everybody = [host, *seen]
        for _ in range(2 if quick else 10):
            # A key first: where the first key asks for control, it is not the interrupt that has to wait for it.
            seen[0].type("clear; yes\r")
            place.spin(2.0)
            for window in everybody:
                window.forget()
            pressed = now()
            seen[0].type("\x03")
            stamp = place.spin(30, lambda: all(PROMPT.encode() in window.text() for window in everybody),
                               "the prompt after an interrupt of %s" % kind.name)
            times.append((stamp - pressed) * 1000)
            place.spin(0.5)
    return spread(times)


def interrupt(kind, quick):
    out = {}
    if kind.views:
        out["interrupt_ms"] = interrupted(kind, quick)
    return out


def slow(kind, quick):
    if not (kind.views and kind.far):
        return {}
    return {"interrupt_slow_ms": interrupted(kind, quick, mbit=SLOW_MBIT)}


def memory(kind, quick):
    out, most = {}, 5 if quick else 20
    if not kind.views:
        return out
    with Place() as place:
        peer, _, _ = begun(place, kind)
        place.spin(2)
        out["memory_0_mib"] = place.host_memory()
        for count in range(1, most + 1):
            joined(place, peer)
            if count in (1, most):
                place.spin(3)
                out["memory_%d_mib" % count] = place.host_memory()
    out["memory_more_mib"] = out["memory_%d_mib" % most] - out["memory_0_mib"]
    return out


def idle(kind, quick):
    out, seconds = {}, 3 if quick else 15
    if not kind.views:
        return out
    with Place() as place:
        peer, _, _ = begun(place, kind)
        for count in range(1, (5 if quick else 20) + 1):
            joined(place, peer)
            if count in (1, 20):
                place.spin(4)
                before = place.host_cpu()
                place.spin(seconds)
                out["idle_%d_percent" % count] = (place.host_cpu() - before) * 100 / seconds
    return out


def echo(kind, quick):
    if not (kind.views and kind.far):
        return {}
    with Place(delay_ms=FAR_MS) as place:
        _, host, seen = begun(place, kind, 1)
        host.type("clear; cat\r")
        place.spin(2)
        # The first key asks for control where it must be asked for.
        typed(place, seen[0], seen[0], 1, 900)
        return {"echo_far_ms": typed(place, seen[0], seen[0], 10 if quick else 50, 0)}


MEASURES = {"keys": keys, "join": join, "flood": flood, "interrupt": interrupt, "slow": slow, "memory": memory, "idle": idle,
            "echo": echo}


def here(names):
    """The peers that take part, with their versions; the others are named with the reason."""
    out = []
    for kind in PEERS:
        if names and kind.name not in names:
            continue
        try:
            out.append((kind, kind.check()))
        except Missing as why:
            print("%s is left out: %s" % (kind.name, why), file=sys.stderr)
    return out


def measured(measures, kinds, quick):
    figures_of = {kind.name: {} for kind in kinds}
    for name in measures:
        for kind in kinds:
            print("%-10s %s" % (name, kind.name), file=sys.stderr, flush=True)
            try:
                figures_of[kind.name].update(MEASURES[name](kind, quick))
            except Unfit as why:
                print("  not measured: %s" % why, file=sys.stderr)
    bare = figures_of.get(Bare.name, {}).get("flood_s")
    for own in figures_of.values():
        if bare and "flood_s" in own:
            own["flood_ratio"] = own["flood_s"] / bare
    return figures_of


def as_text(value):
    if isinstance(value, dict):
        return "%.2f (%.2f)" % (value["p50"], value["p95"])
    return "-" if value is None else "%.2f" % value


def print_table(figures_of):
    rows = []
    for own in figures_of.values():
        rows += [key for key in own if key not in rows]
    print("%-26s" % "p50 (p95) or median" + "".join("%20s" % name for name in figures_of))
    for row in rows:
        print("%-26s" % row + "".join("%20s" % as_text(own.get(row)) for own in figures_of.values()))


def goals(own):
    """Each goal with our figure: whether it holds, or by how much it is missed."""
    out = []
    for what, key, limit, unit in GOALS:
        name, _, part = key.partition(".")
        value = own.get(name)
        value = value[part] if part and value else value
        if value is None:
            verdict = "not measured"
        elif value <= limit:
            verdict = "holds"
        else:
            verdict = "misses by %.2f %s (%.0f %%)" % (value - limit, unit, (value / limit - 1) * 100)
        out.append({"goal": what, "limit": limit, "unit": unit, "value": value, "verdict": verdict})
    return out


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--only", default=",".join(MEASURES), help="which measures, separated by commas")
    words.add_argument("--peers", default="", help="which peers, separated by commas; all that are installed if not said")
    words.add_argument("--json", metavar="FILE", help="also write everything there")
    words.add_argument("--quick", action="store_true", help="fewer rounds, to see that it works")
    args = words.parse_args()
    peers = here([name for name in args.peers.split(",") if name])
    versions = {kind.name: text for kind, text in peers}
    before = os.getloadavg()[0]
    figures_of = measured(args.only.split(","), [kind for kind, _ in peers], args.quick)
    print_table(figures_of)
    held = goals(figures_of.get(CollabP2p.name, {}))
    print()
    for goal in held:
        value = "-" if goal["value"] is None else "%.2f" % goal["value"]
        print("%-34s %10s of %7.2f %-4s %s" % (goal["goal"], value, goal["limit"], goal["unit"], goal["verdict"]))
    if args.json:
        record = {"versions": versions, "cores": os.cpu_count(), "quick": args.quick,
                  "load1": [before, os.getloadavg()[0]], "figures": figures_of, "goals": held}
        with open(args.json, "w") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
