#!/bin/bash
# Runs a command under a kernel that has what this machine's kernel may lack: sch_netem above all.
#
#   tests/uml/run.sh [--memory MB] [--timeout SECONDS] [--writable FOLDER]… -- COMMAND ARGS…
#   tests/uml/run.sh -- target/release/tribunal run test.yaml --on netns --store store
#
# The kernel is User-Mode Linux: an ordinary process, which needs neither KVM nor a privilege of the host. COMMAND
# runs in it as root and sees the host's files. What it writes is gone afterwards, except below the current folder and
# the folders that are named with --writable: those are the host's own, at the same paths. The environment is passed
# on; stdin is empty; there is no network to the outside. Expect one CPU, and 50 ms for each program that starts.
#
# Exit code: that of COMMAND, or
#   124  COMMAND was stopped, because it did not end within --timeout (300 s if not given)
#   125  this script failed: no User-Mode Linux, no boot, no exit code, bad arguments; it says which
#   130  interrupted (143: terminated)
#
# Needs, on Debian: apt-get install user-mode-linux kmod iproute2 build-essential

set -euo pipefail

readonly BOOT_LIMIT=60 # A boot and a shutdown take 4 s together.
readonly GRACE=20 # To stop a command that is too slow, to write what it left, and to power off.
readonly KERNEL=linux.uml

# The end of the kernel's log is worth something only if the machine failed, not if the command did.
fail() {
    if [[ -s ${work:-}/console ]]; then
        echo "run.sh: the end of the machine's log:" >&2
        tail -n 30 "$work/console" | sed 's/\r$//; s/^/  | /' >&2
    fi
    echo "run.sh: $1" >&2
    exit "${2:-125}"
}

memory=1024
limit=300
writable=("$PWD")
while (($#)); do
    case $1 in
    --memory | --timeout)
        [[ ${2:-} =~ ^[1-9][0-9]{0,6}$ ]] || fail "$1 needs a whole number"
        if [[ $1 == --memory ]]; then memory=$2; else limit=$2; fi
        shift 2
        ;;
    --writable)
        [[ -d ${2:-} ]] || fail "--writable needs a folder that exists, not '${2:-}'"
        writable+=("$(cd "$2" && pwd)")
        shift 2
        ;;
    --help | -h)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --)
        shift
        break
        ;;
    *) fail "unknown argument '$1' (the command comes after '--'; see --help)" ;;
    esac
done
(($#)) || fail "no command given; it comes after '--' (see --help)"

for folder in "${writable[@]}"; do
    # Else nothing of the host would be safe from the command, and the machine's own /dev and /run would be hidden.
    [[ $folder != / ]] || fail "'/' cannot be writable: call this from another folder"
done
command -v "$KERNEL" >/dev/null || fail "there is no $KERNEL here: apt-get install user-mode-linux"
PATH=$PATH:/usr/sbin:/sbin command -v modprobe >/dev/null || fail "there is no modprobe here: apt-get install kmod"
release=$("$KERNEL" --version | tail -n 1)
[[ -d /usr/lib/uml/modules/$release ]] ||
    fail "no modules for $KERNEL $release in /usr/lib/uml/modules: apt-get install --reinstall user-mode-linux"
# The machine's memory is an unlinked file there. A container's 64 MB would end it with a bus error, later.
room=$(df --output=avail -B1M /dev/shm | tail -n 1)
((room >= memory)) ||
    fail "/dev/shm has ${room// /} MB, the machine needs $memory: --memory, or Docker's --shm-size, changes that"

work='' machine='' readers=()
# shellcheck disable=SC2317 # The trap calls it.
clean() {
    trap '' INT TERM HUP
    if [[ -n $machine ]]; then
        kill -KILL "$machine" 2>/dev/null || true
        # Its processes are a group, which only they are in. One that is dead is still counted until it is reaped, which
        # is not for us to do, hence the limit.
        for ((i = 0; i < 10; i++)); do
            kill -KILL -- "-$machine" 2>/dev/null || break
            sleep 0.05
        done
    fi
    ((${#readers[@]} == 0)) || kill "${readers[@]}" 2>/dev/null || true
    [[ -z $work ]] || rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Not in $TMPDIR: the name stands on the kernel's command line, which has no quotes.
work=$(mktemp -d /tmp/tribunal-uml.XXXXXX)
mkfifo "$work/out" "$work/err"

# Where the processor has more registers than the kernel knows; elsewhere it changes nothing.
cc -shared -fPIC -O1 -o "$work/xstate.so" "${BASH_SOURCE[0]%/*}/xstate.c" -ldl 2>"$work/console" ||
    fail "cannot compile xstate.c, which stands beside this script: apt-get install build-essential"

# Zero bytes between them: whatever an argument holds, it arrives as it is.
printf '%s\0' "$@" >"$work/arguments"
printf '%s\0' "${writable[@]}" >"$work/writable"
env -0 >"$work/environment"
printf '%s' "$PWD" >"$work/folder"
printf '%s' "$limit" >"$work/limit"

# What follows runs as the machine's first process, on the host's root, read-only.
cat >"$work/init" <<'INIT'
#!/bin/bash
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
control=${0%/*}
off() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
trap 'echo "run.sh: line $LINENO of init failed: $BASH_COMMAND"; off' ERR

mount -t proc proc /proc
mount -t tmpfs tmpfs /run
modules=/usr/lib/uml/modules/$(uname -r)
# The host may have no /lib/modules, and it is not writable yet.
mkdir -p /run/upper /run/work /run/root /run/kmod/lib/modules
ln -s "$modules" "/run/kmod/lib/modules/${modules##*/}"
modprobe --dirname /run/kmod overlay
root=/run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay $root

mkdir -p $root/lib/modules $root/{proc,sys,dev,run,tmp}
ln -sfn "$modules" "$root/lib/modules/${modules##*/}"
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t devtmpfs devtmpfs $root/dev
mkdir -p $root/dev/pts $root/dev/shm
# What udev would do.
ln -s /proc/self/fd $root/dev/fd
for ((i = 0; i < 3; i++)); do
    names=(stdin stdout stderr)
    ln -s "/proc/self/fd/$i" "$root/dev/${names[i]}"
done
mount -t devpts devpts $root/dev/pts
mount -t tmpfs tmpfs $root/dev/shm
# The host's sockets, locks and namespaces are nothing here.
mount -t tmpfs tmpfs $root/run
mkdir -p $root/run/lock $root/run/before
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
# hostfs is good enough to work in: fsync, flock, rename, symlinks, sockets and shared mappings were tried and are right,
# and a small write with fdatasync takes 0.4 ms (0.2 ms on the host itself, 0.3 ms on a tmpfs in here).
while IFS= read -r -d '' folder; do
    mkdir -p "$root$folder"
    mount -t hostfs -o "$folder" hostfs "$root$folder"
done <"$control/writable"
mkdir -p $root/run/control
mount -t hostfs -o "$control" hostfs $root/run/control
# Not chroot: the kernel looks for /sbin/modprobe and the modules in the root of the first process.
cd $root
pivot_root . run/before
exec </dev/null
cd /
control=/run/control
umount -l /run/before

# Those that are missing from a later package are missed, if at all, by the command, which says so better.
modprobe -a veth bridge sch_netem sch_htb cls_u32 nf_tables nft_compat ip_tables iptable_filter xt_statistic \
    xt_comment fuse || true
ip link set lo up
# nf_tables of Debian 12's kernel has no IPv4 ("TABLE_ADD failed"): there, the older half of iptables has to do.
if [[ -e /etc/alternatives/iptables ]] && ! { iptables -N tribunal-uml && iptables -X tribunal-uml; } 2>/dev/null; then
    for name in iptables iptables-save iptables-restore; do
        ln -sf "/usr/sbin/${name/iptables/iptables-legacy}" "/etc/alternatives/$name"
    done
fi

# Raw, or the lines' terminals would turn each line feed into two bytes.
stty -F /dev/ttyS0 raw -echo
stty -F /dev/ttyS1 raw -echo
# Pipes in front of them, for the command is to see no terminal.
mkfifo /run/out /run/err
cat </run/out >/dev/ttyS0 &
cat </run/err >/dev/ttyS1 &
mapfile -t readers < <(jobs -p)

mapfile -d '' -t arguments <$control/arguments
mapfile -d '' -t environment <$control/environment
limit=$(<$control/limit)
: >$control/up
code=0
began=$SECONDS
# The shell in between changes the folder, and takes a name with a `=` in it for a command, which env would not.
timeout --kill-after=5 "$limit" env -i "${environment[@]}" \
    sh -c 'cd "$1" && shift && exec "$@"' run.sh "$(<$control/folder)" "${arguments[@]}" >/run/out 2>/run/err || code=$?
((SECONDS - began < limit)) || : >$control/late
# Something that the command has left in the background could hold the pipes for ever.
for ((i = 0; i < 50; i++)); do
    kill -0 "${readers[@]}" 2>/dev/null || break
    sleep 0.1
done
echo $code >$control/code
off
INIT
chmod +x "$work/init"

# What UML does with the descriptors it is given (it makes them non-blocking) must not happen to our caller's.
cat <"$work/out" &
readers+=($!)
cat <"$work/err" >&2 &
readers+=($!)
TMPDIR=/dev/shm LD_PRELOAD="$work/xstate.so" setsid "$KERNEL" mem="$memory"M root=/dev/root rootfstype=hostfs rootflags=/ ro init="$work/init" \
    uml_dir="$work/" umid=machine con=null con0=null,fd:1 ssl=null ssl0=null,fd:5 ssl1=null,fd:6 panic=-1 quiet \
    </dev/null >"$work/console" 2>&1 5>"$work/out" 6>"$work/err" &
machine=$!
# Else the shell would remark on how it was killed.
disown "$machine"

began=$SECONDS
while kill -0 "$machine" 2>/dev/null; do
    passed=$((SECONDS - began))
    if [[ ! -e $work/up ]]; then
        ((passed < BOOT_LIMIT)) || fail "the machine did not boot within $BOOT_LIMIT s"
    else
        ((passed < BOOT_LIMIT + limit + GRACE)) || fail "the machine did not end within $limit s and $GRACE s more" 124
    fi
    sleep 0.1
done
[[ -e $work/up ]] || fail "the machine ended before it had booted"
[[ -s $work/code ]] || fail "the machine ended without an exit code (not enough memory? It had $memory MB)"
wait "${readers[@]}"
readers=()
if [[ -e $work/late ]]; then
    echo "run.sh: the command did not end within $limit s and was stopped" >&2
    exit 124
fi
exit "$(<"$work/code")"
