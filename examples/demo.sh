#!/usr/bin/env bash
# A host and two viewers on this machine, by the verbs alone: chat, control over and back, and the same screen for
# all. Says what it does. $COLLAB_P2P names the program; without it, it is built.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${COLLAB_P2P:-} ]]; then
    (cd "$here" && cargo build --release --quiet)
    COLLAB_P2P=${CARGO_TARGET_DIR:-$here/target}/release/collab-p2p
fi

place=$(mktemp -d)
nodes=()
finish() {
    local pid
    for pid in "${nodes[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$place"
}
trap finish EXIT

say() { printf '\n== %s\n' "$*"; }

# One person's program: a state folder each, so that one machine plays three.
as() {
    local who=$1
    shift
    printf '%s$ collab-p2p %s\n' "$who" "$(cut -c1-90 <<<"$*")" >&2
    "$COLLAB_P2P" --state-dir "$place/$who" "$@"
}

# Starts a node in the background and waits for its first line.
serve() {
    local who=$1 verb=$2
    shift 2
    printf '%s$ collab-p2p %s %s\n' "$who" "$verb" "$(cut -c1-90 <<<"$*")" >&2
    "$COLLAB_P2P" --state-dir "$place/$who" "$verb" --name "$who" --headless --no-mdns "$@" \
        >"$place/$who.out" 2>"$place/$who.err" &
    nodes+=($!)
    local try
    for try in $(seq 200); do
        [[ -s $place/$who.out ]] && return
        if ! kill -0 "${nodes[-1]}" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "$who did not start:" >&2
    cat "$place/$who.err" >&2
    exit 1
}

# Tries a command until it prints what is waited for.
until_prints() {
    local what=$1 out='' try
    shift
    for try in $(seq 100); do
        out=$("$@" 2>/dev/null || true)
        if [[ $out == *"$what"* ]]; then
            printf '%s\n' "$out"
            return
        fi
        sleep 0.1
    done
    printf 'waited in vain for %s:\n%s\n' "$what" "$out" >&2
    exit 1
}

say "ada shares a terminal that runs a shell; anybody with the ticket may watch"
cat >"$place/shell" <<'SHELL'
#!/bin/sh
PS1='ada$ '
export PS1
exec sh -i
SHELL
chmod +x "$place/shell"
serve ada share --title demo -- "$place/shell"
ticket=$(head -n 1 "$place/ada.out")
[[ $ticket == cp2p1* ]] || { cat "$place/ada.err" >&2; exit 1; }
printf 'the ticket has %s characters\n' "${#ticket}"

say "bob and cleo join with it"
serve bob join "$ticket"
serve cleo join "$ticket"
until_prints cleo as ada who

say "they chat"
as bob chat "hello from bob"
until_prints "hello from bob" as cleo chat >/dev/null
as cleo chat "hello from cleo"
until_prints "hello from cleo" as ada chat

say "bob may only watch: his keys reach nobody"
code=0
as bob type 'echo intruder' --enter 2>&1 || code=$?
printf 'exit %s\n' "$code"
[[ $code == 4 ]]

say "he asks for control, ada gives it for ten minutes"
as bob control request
until_prints ") asks for control" as ada control status
as ada control grant bob --for 10m
until_prints "bob has control" as bob control status
as bob type 'echo typed by bob' --enter
until_prints "typed by bob" as cleo screen

say "ada takes it back by typing herself"
as ada type 'echo typed by ada' --enter
until_prints "nobody has control" as cleo control status
code=0
as bob type 'too late' 2>&1 || code=$?
printf 'exit %s\n' "$code"
[[ $code == 4 ]]

say "all three see the same screen"
until_prints "typed by ada" as cleo screen >/dev/null
same=no
for _ in $(seq 50); do
    host=$(as ada screen --json 2>/dev/null)
    if [[ $(as bob screen --json 2>/dev/null) == "$host" && $(as cleo screen --json 2>/dev/null) == "$host" ]]; then
        same=yes
        break
    fi
    sleep 0.1
done
[[ $same == yes ]]
as bob screen | sed -n '/./p'
echo "the same screen at ada, bob and cleo"

say "ada stops the session, and everybody's program ends"
as ada stop
for pid in "${nodes[@]}"; do
    wait "$pid" || true
done
nodes=()
cat "$place/bob.err"
