#!/bin/sh
# Installs edgekit-runtime in Termux on an Android phone.
#
#   sh install.sh build edgekit_runtime-0.1.0-py3-none-any.whl    the engine is compiled for Android itself (bionic)
#   sh install.sh proot edgekit_runtime-0.1.0-py3-none-any.whl    inside a Debian (proot-distro), with its glibc
#
# Wheels for Linux don't load in Termux, whose C library is bionic: one way compiles, the other brings a glibc.  Both need
# a connection, about 2 GB of storage and 10 to 30 minutes, once.  Running it again repairs or updates.
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1: $2"; exit "${3:-2}"; }

[ $# -eq 2 ] || fail "it needs a way and a wheel" "sh install.sh build|proot WHEEL"
way=$1 wheel=$2
[ -f "$wheel" ] || fail "there is no $wheel" "copy the wheel of edgekit-runtime to the phone" 3
command -v pkg >/dev/null || fail "this is no Termux" "install Termux from F-Droid and run this there" 5
[ "$(uname -m)" = aarch64 ] || fail "$(uname -m) is not supported" "use a 64-bit phone" 5
home=${EDGEKIT_HOME:-$HOME/.edgekit}
wheel=$(cd "$(dirname "$wheel")" && pwd)/$(basename "$wheel")

# The engine, for any 64-bit phone: what the CPU has beyond that is not used.
options="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF"

case $way in
build)
  say "installing Termux's Python, compilers and the packages that have no wheels here"
  pkg install -y python clang cmake ninja python-numpy python-cryptography python-psutil
  python -m venv --system-site-packages "$home"
  say "compiling the engine"
  CMAKE_ARGS=$options "$home/bin/pip" install --upgrade "$wheel"
  run="$home/bin/edgekit-runtime"
  ;;
proot)
  say "installing a Debian inside Termux"
  pkg install -y proot-distro
  proot-distro login debian -- true 2>/dev/null || proot-distro install debian
  proot-distro login debian --bind "$(dirname "$wheel"):/wheel" -- sh -euc "
    apt-get update -qq
    apt-get install -y -qq python3-venv python3-dev build-essential cmake
    python3 -m venv /opt/edgekit
    CMAKE_ARGS='$options' /opt/edgekit/bin/pip install --upgrade /wheel/$(basename "$wheel")
  "
  mkdir -p "$home/bin"
  run="$home/bin/edgekit-runtime"
  # The phone's files are seen inside under the same path.
  printf '#!/bin/sh\nexec proot-distro login debian --termux-home -- /opt/edgekit/bin/edgekit-runtime "$@"\n' >"$run"
  chmod +x "$run"
  ;;
*) fail "$way is no way to install" "use build or proot" ;;
esac
"$run" doctor
say "done: $run run BUNDLE --prompt …"
