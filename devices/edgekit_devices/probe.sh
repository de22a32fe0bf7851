# Facts of a machine as KEY=VALUE lines.  POSIX sh, because a device may have nothing else.
say() { printf '%s=%s\n' "$1" "$2"; }
field() { sed -n "s/^$1[[:space:]]*:[[:space:]]*//p" /proc/cpuinfo 2>/dev/null | head -n 1; }
kib() { sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" /proc/meminfo 2>/dev/null; }
say architecture "$(uname -m)"
say board "$({ tr -d '\0' < /proc/device-tree/model; } 2>/dev/null)"
say model "$(field 'model name')"
say part "$(field 'CPU part')"
say features "$(field flags)$(field Features)"
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
say clock_khz "$(cat /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 2>/dev/null)"
say governor "$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
say memory_kib "$(kib MemTotal)"
say available_kib "$(kib MemAvailable)"
say disk_kib "$(df -Pk "${EDGEKIT_PATH:-$HOME}" 2>/dev/null | awk 'NR == 2 { print $4 }')"
say os "$(. /etc/os-release 2>/dev/null; printf %s "$PRETTY_NAME")"
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | tr ' ' -)
[ -n "$libc" ] || libc=$(ls /lib/ld-musl-* 2>/dev/null | head -n 1 | sed 's/.*/musl/')
say libc "$libc"
say python "$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
say init "$(cat /proc/1/comm 2>/dev/null)"
