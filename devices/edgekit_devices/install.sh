#!/bin/sh
# Installs the bundle and the runtime that lie beside this file.  Needs python3 and nothing else; uses no network.
set -eu
umask 022

usage() {
    cat <<'END'
sh install.sh [--prefix DIR] [--service] [--port N] [--allow-downgrade]
                              install or update; run again as often as you like
sh install.sh --rollback      go back to what ran before the last install
sh install.sh --uninstall     remove everything

--prefix DIR   where (default: /opt/edgekit for root, else ~/.local/share/edgekit-device)
--service      start it with systemd, answering on 127.0.0.1
END
}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 5; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
action=install prefix='' service='' port=8080 downgrade=''
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -ge 2 ] || die "--prefix needs a folder: --prefix /opt/edgekit"; prefix=$2; shift ;;
        --port) [ $# -ge 2 ] || die "--port needs a number: --port 8080"; port=$2; shift ;;
        --service) service=yes ;;
        --allow-downgrade) downgrade=--allow-downgrade ;;
        --rollback) action=rollback ;;
        --uninstall) action=uninstall ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
root=''
[ "$(id -u)" != 0 ] || root=yes
if [ -z "$prefix" ]; then
    if [ -d "$here/runtimes" ]; then prefix=$here
    elif [ -n "$root" ]; then prefix=/opt/edgekit
    else prefix=$HOME/.local/share/edgekit-device
    fi
fi
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
# In a unit, in sed and in the first line of scripts these signs are more than a name.
line='
'
case $prefix in
    *["$line|&;%\"'\`\$<>"]* | *\\*) die "--prefix has a sign that a folder of a service can't have (one of | & ; % \" ' \` \$ < > \\ or a line break): choose another" ;;
esac
if [ -n "$root" ]; then unit=/etc/systemd/system/edgekit.service
else unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/edgekit.service
fi
store=$prefix/store user=edgekit
command=$prefix/runtime/bin/edgekit-runtime

# Runs a function up to its first failure, and keeps its exit code in $status.  Not in a condition: there -e has no effect.
attempt() { set +e; (set -e; "$@"); status=$?; set -e; }
control() { if [ -n "$root" ]; then systemctl "$@"; else systemctl --user "$@"; fi; }
current_runtime() { readlink "$prefix/runtime" 2>/dev/null || true; }
current_generation() { cat "$store/current" 2>/dev/null || true; }
# Replaced in one rename: there is always one runtime.
use_runtime() { "$python" -c 'import os, sys; os.symlink(sys.argv[1], sys.argv[2] + ".new"); os.replace(sys.argv[2] + ".new", sys.argv[2])' "$1" "$prefix/runtime"; }
older_than() { "$python" -c 'import sys; a, b = (tuple(map(int, v.split("."))) for v in sys.argv[1:]); sys.exit(a >= b)' "$1" "$2"; }

find_python() {
    for python in ${PYTHON:+"python$PYTHON"} python3; do
        if command -v "$python" >/dev/null 2>&1; then return; fi
    done
    die "there is no python3: install Python ${PYTHON:-3.11}"
}

check_machine() {
    [ "$(uname -m)" = "$ARCHITECTURE" ] || die "this is $(uname -m), and the runtime is for $ARCHITECTURE: build it for another --device"
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$version" = "$PYTHON" ] || die "this has Python $version, and the runtime is for $PYTHON: build it with --python $version"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/glibc //')
    [ -n "$libc" ] || die "this has no glibc: use a system that has, Debian say"
    if older_than "$libc" "$LIBC"; then die "this has glibc $libc, and the runtime needs $LIBC: use a newer system"; fi
    "$python" -c 'import ctypes; ctypes.CDLL("libstdc++.so.6")' 2>/dev/null || die "libstdc++.so.6 is missing: install libstdc++6"
    "$python" -c 'import venv' 2>/dev/null || die "Python has no venv: install python3-venv"
    if [ -n "$service" ] && ! command -v systemctl >/dev/null 2>&1; then die "there is no systemd: install without --service"; fi
    mkdir -p "$prefix" || die "$prefix can't be made: choose another --prefix"
    free=$(df -Pk "$prefix" | awk 'NR == 2 { print int($4 / 1024) }')
    need=$BUNDLE_MB
    [ -e "$prefix/runtimes/$RUNTIME/.complete" ] || need=$((need + RUNTIME_MB))
    [ "$free" -ge "$need" ] || die "the disk is full: $prefix has $free MiB free, and this needs $need MiB: free some space"
}

install_runtime() {
    folder=$prefix/runtimes/$RUNTIME
    [ ! -e "$folder/.complete" ] || return 0
    say "installing the runtime"
    rm -rf "$folder"
    mkdir -p "$prefix/runtimes"
    "$python" -m venv --without-pip "$folder"
    # pip runs from its own wheel: Debian's python3 comes without one.
    PIP_CONFIG_FILE=/dev/null "$folder/bin/python" "$(echo "$here"/wheelhouse/pip-*.whl)/pip" install --quiet --no-index \
        --no-cache-dir --disable-pip-version-check --no-warn-script-location --find-links "$here/wheelhouse" "$REQUIREMENT"
    : > "$folder/.complete"
}

# The runtime knows its unit.  It shall name the link, which an update or rollback moves, and not the folder of today.
write_unit() {
    mkdir -p "$(dirname "$unit")"
    if [ -n "$root" ]; then
        id "$user" >/dev/null 2>&1 || useradd --system --no-create-home --home-dir "$store" --shell /usr/sbin/nologin "$user"
        dropped='^;' target=multi-user
    else
        # A user's own systemd may not change users, nor fence in what it starts.
        dropped='^(User|ReadWritePaths|CapabilityBoundingSet|NoNewPrivileges|LockPersonality|OOMPolicy|Protect|Private|Restrict[A-Z])'
        target=default
    fi
    "$command" serve --store "$store" --port "$port" --print-unit \
        | sed "s|$prefix/runtimes/[^/]*/|$prefix/runtime/|" \
        | grep -Ev "$dropped" \
        | sed "s|^WantedBy=.*|WantedBy=$target.target|" > "$unit.new"
    [ -s "$unit.new" ]
    mv "$unit.new" "$unit"
    control daemon-reload
    control enable edgekit.service
}

# What root has put into the store is the service's to read and change.
hand_over() {
    if [ -n "$root" ] && id "$user" >/dev/null 2>&1 && [ -e "$unit" ]; then chown -R "$user" "$store"; fi
}

# One install at a time; that of a process that has died doesn't count.
take_lock() {
    lock=$prefix/lock
    if ! mkdir "$lock" 2>/dev/null; then
        if kill -0 "$(cat "$lock/pid" 2>/dev/null || echo none)" 2>/dev/null; then
            die "another install is at work in $prefix: wait until it is done"
        fi
    fi
    mkdir -p "$lock"
    echo $$ > "$lock/pid"
    trap 'rm -rf "$lock"' EXIT
}

# The service is up, and each model answers a canary prompt.
await_service() {
    "$prefix/runtime/bin/python" - "http://127.0.0.1:$port" "${root:-user}" <<'END'
import json, subprocess, sys, time, urllib.request

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(sys.argv[1] + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)

def restarts():
    """How often systemd has had to start it again."""
    scope = ["--user"] if sys.argv[2] == "user" else []
    command = ["systemctl", *scope, "show", "--property=NRestarts", "--value", "edgekit.service"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return int(said) if said.isdecimal() else 0

deadline, before = time.monotonic() + 300, restarts()
while True:
    try:
        ask("/health")
        break
    except Exception as error:
        if time.monotonic() > deadline or restarts() >= before + 3:
            sys.exit(f"error: the service doesn't get healthy ({error}): look at journalctl -u edgekit")
        time.sleep(1)
message = {"role": "user", "content": "Say something."}
try:
    for model in [each["id"] for each in ask("/v1/models")["data"]]:
        body = {"model": model, "messages": [message], "max_tokens": 8, "temperature": 0}
        tokens = ask("/v1/chat/completions", body)["usage"]["completion_tokens"]
        said = f"answers, {tokens} tokens" if tokens else "ends its answer at once; its logits were tried when it was installed"
        print(f"canary: {model} {said}")
except Exception as error:
    said = error.read().decode() if hasattr(error, "read") else ""
    sys.exit(f"error: the service gives no answer ({error} {said}): look at journalctl -u edgekit")
END
}

restart() {
    if [ -e "$unit" ]; then
        hand_over
        control restart edgekit.service
    fi
}

# Back to the generation, runtime and unit of before; what wasn't there is taken away.
restore() {
    if [ -z "$1" ]; then
        empty_store
    elif [ "$(current_generation)" != "$1" ]; then
        "$command" adapters rollback --store "$store" >/dev/null
    fi
    if [ -z "$2" ]; then rm -f "$prefix/runtime"; elif [ "$(current_runtime)" != "$2" ]; then use_runtime "$2"; fi
    if [ -e "$unit" ]; then
        if [ -z "$3" ]; then remove_unit; else restart; fi
    fi
    if [ -z "$1" ]; then say "nothing is left of it"; else say "rolled back to generation $1"; fi
}

# Keys that it trusts stay.
empty_store() {
    for part in current generations objects refused probed tmp cache lock trial.lock; do rm -rf "${store:?}/$part"; done
    rmdir "$store" 2>/dev/null || true
}

remove_unit() {
    if [ -e "$unit" ]; then
        control disable --now edgekit.service || true
        rm -f "$unit"
        control daemon-reload || true
    fi
}

put_in_place() {
    use_runtime "runtimes/$RUNTIME"
    "$command" adapters install "$here/bundle" --store "$store" $downgrade
    if [ -n "$service" ] || [ -e "$unit" ]; then
        "$command" doctor
        if [ -n "$service" ]; then write_unit; fi
        restart
        await_service
    else
        "$command" doctor --store "$store"
    fi
}

do_install() {
    [ -r "$here/kit.env" ] || die "there is nothing to install beside $here/install.sh: use the one of the unpacked .tar"
    . "$here/kit.env"
    find_python
    check_machine
    take_lock
    (cd "$here" && sha256sum -c SHA256SUMS >/dev/null) || { say "error: a file is damaged: copy the .tar again" >&2; exit 3; }
    before_generation=$(current_generation) before_runtime=$(current_runtime)
    before_unit=''
    [ ! -e "$unit" ] || before_unit=yes
    kit=$(sha256sum < "$here/SHA256SUMS")
    attempt install_runtime
    if [ "$status" != 0 ]; then
        rm -rf "$prefix/runtimes/$RUNTIME"
        die "the runtime can't be installed: nothing was changed; look at what pip said"
    fi
    if [ -n "$before_generation" ] && [ "$(cat "$prefix/installed" 2>/dev/null)" = "$kit" ] && [ -z "$service" ]; then
        say "this is installed already"
        exit 0
    fi
    attempt put_in_place
    if [ "$status" != 0 ]; then
        restore "$before_generation" "$before_runtime" "$before_unit"
        exit 5
    fi
    printf '%s\n' "$kit" > "$prefix/installed"
    printf '%s\n' "$before_runtime" > "$prefix/previous"
    [ "$here" = "$prefix" ] || cp "$here/install.sh" "$prefix/install.sh"
    for old in "$prefix"/runtimes/*; do
        case runtimes/${old##*/} in "$(current_runtime)" | "$before_runtime") ;; *) rm -rf "$old" ;; esac
    done
    say "installed $NAME $VERSION in $prefix"
}

case $action in
    install) do_install ;;
    rollback)
        find_python
        [ -n "$(current_generation)" ] || die "nothing is installed in $prefix: say --prefix"
        "$command" adapters rollback --store "$store" >/dev/null || exit 5
        before=$(cat "$prefix/previous" 2>/dev/null || true)
        if [ -n "$before" ] && [ -d "$prefix/$before" ]; then use_runtime "$before"; fi
        rm -f "$prefix/installed"
        restart
        say "rolled back to generation $(current_generation)"
        ;;
    uninstall)
        remove_unit
        rm -rf "$prefix/runtimes" "$store" "$prefix/incoming" "$prefix/kit" "$prefix/kit.new" "$prefix/lock"
        rm -f "$prefix/runtime" "$prefix/installed" "$prefix/previous" "$prefix/install.sh"
        rmdir "$prefix" 2>/dev/null || true
        say "removed from $prefix"
        ;;
esac
