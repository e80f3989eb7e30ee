#!/usr/bin/env bash
# lab.sh - N "hosts" on one machine, each with its own IP address and its own real
#       Docker Engine, joined by one virtual switch.
#
#   lab up N              make (or complete) hosts h1..hN; wait until every engine answers
#   lab down [--keep]     end everything, remove everything (--keep: keep the engines' data)
#   lab ls                table of the hosts
#   lab exec H CMD...     run CMD inside host H (all its namespaces, DOCKER_HOST set); H = sw: the switch
#   lab all CMD...        the same on every live host, one after the other, output prefixed
#   lab image NAME PATH   load an image into every engine. PATH: a docker-save tar, a rootfs tar or a rootfs directory
#   lab busybox [NAME]    build an image from /bin/busybox (default name busybox:lab), load it into every engine
#   lab partition H...    cut these hosts off from the rest (they still reach each other: one call = one island)
#   lab cut A B           cut only the pair A<->B          lab cut --oneway A B: B no longer hears A
#   lab heal [H...]       undo partitions and cuts (all, or of these hosts)
#   lab kill H...         power loss: cable first (no FIN/RST gets out), then SIGKILL for every process of H
#   lab crash H...        SIGKILL for dockerd only; host, network and containers stay
#   lab stop H...         orderly shutdown: SIGTERM to dockerd, wait, then host off
#   lab freeze H... / thaw H...   stop / continue every process of H, containers too (a hung machine;
#                         its kernel still answers pings and accepts TCP connections)
#   lab start H...        start a dead host (same IP, MAC, data), or the engine of a live host
#   lab log H [N]         last N lines of the engine's log
#   lab env H             print "export DOCKER_HOST=..." (works outside the namespaces as well)
#
# How: host = one process tree in its own net, mount, uts, ipc and pid namespace. Ending the pid
# namespace's init ends dockerd, containerd, shims and containers at once, and with the last process
# the mounts and interfaces of the host go too: nothing can be left behind in the caller's namespaces.
# The switch is one more such namespace ("sw") that holds the bridge; nothing is made in the caller's
# network namespace, so several labs (LAB_NAME) can run side by side with the same subnet.
#
# Environment: LAB_NAME (shoal-lab), LAB_DATA (/var/lib/$LAB_NAME), LAB_NET (10.77.0),
#   LAB_DOCKERD_FLAGS (more flags for dockerd), LAB_ENGINE (a program to run in place of the built-in
#   dockerd line; it gets LAB_HOST LAB_IP LAB_SOCK LAB_HOSTDATA LAB_CGROUP and must answer GET /_ping on LAB_SOCK),
#   LAB_NO_ENGINE=1 (hosts without an engine), LAB_CPU_SHARES (weight of the lab's processes, 1024 for each host).
set -Eeuo pipefail
trap 'echo "lab: FAILED at line $LINENO: $BASH_COMMAND" >&2' ERR
TMP=                                           # scratch folder of this call, if it makes one
trap '[[ -z $TMP ]] || rm -rf "$TMP"' EXIT

SELF=$(readlink -f "$0")
LAB_NAME=${LAB_NAME:-shoal-lab}
LAB_NET=${LAB_NET:-10.77.0}                    # a /24; .1 is the switch, .(10+i) is host hi
LAB_DATA=${LAB_DATA:-/var/lib/$LAB_NAME}
export LAB_NAME LAB_NET LAB_DATA
RUN=/run/$LAB_NAME                             # sockets, pids, locks; one folder per host
CG=/sys/fs/cgroup
CONTROLLERS="memory cpuacct cpu freezer pids"  # v1 hierarchies in which a host's own processes are grouped
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die()  { trap - ERR; echo "lab: $*" >&2; exit 1; }
idx()  { [[ $1 =~ ^h([1-9][0-9]{0,2})$ ]] && (( BASH_REMATCH[1] <= 240 )) || die "not a host name: $1 (h1..h240)"; echo "${BASH_REMATCH[1]}"; }
ip_of(){ if [[ $1 == sw ]]; then echo "$LAB_NET.1"; else echo "$LAB_NET.$((10 + $(idx "$1")))"; fi; }
sock() { echo "$RUN/$1/docker.sock"; }
hosts(){ local d; for d in "$RUN"/h*/; do [[ -d $d ]] && basename "$d"; done 2>/dev/null | sort -V; }
live_hosts() { local h; for h in $(hosts); do if alive "$h"; then echo "$h"; fi; done; }

# pid file = "PID STARTTIME": the start time guards against a pid that was used again.
starttime() { local s; { s=$(<"/proc/$1/stat"); } 2>/dev/null || return 1; s=${s##*) }; set -- $s; [[ $1 != Z ]] && echo "${20}"; }
pid_of() { # outer pid of the host's init; fails when the host is off
  local p t; [[ -f $RUN/$1/pid ]] || return 1
  read -r p t <"$RUN/$1/pid"; [[ $(starttime "$p" || true) == "$t" ]] && echo "$p"; }
alive() { pid_of "$1" >/dev/null; }
need()  { pid_of "$1" || die "host $1 is not running (lab ls)"; }
swip()  { local p; p=$(need sw); nsenter -t "$p" -n ip "$@"; }
lock()  { mkdir -p "$RUN"; exec 9>"$RUN/.lock"; flock -w 120 9 || die "another lab command holds $RUN/.lock"; }
until_() { # until_ SECONDS WHAT CMD...: poll CMD every 20 ms
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" 2>/dev/null; do (( SECONDS < end )) || die "timed out waiting for $what"; sleep 0.02; done; }
ping_engine() { [[ $(curl -s -m 2 --unix-socket "$(sock "$1")" http://x/_ping) == OK ]]; }

enter_cgroup() { # move the calling shell into LAB/<1>
  local c; for c in $CONTROLLERS; do
    [[ -d $CG/$c ]] || continue; mkdir -p "$CG/$c/$LAB_NAME/$1"; echo 0 >"$CG/$c/$LAB_NAME/$1/cgroup.procs"; done; }
weigh() { # N hosts weigh as N others on this machine: as one group all of them together would as one process
  local f=$CG/cpu/$LAB_NAME/cpu.shares; [[ ! -e $f ]] || echo "${LAB_CPU_SHARES:-$((1024 * $1))}" >"$f"; }
drop_cgroup() { # remove the (empty) groups LAB/<1> of every hierarchy; a group empties a moment after its last process
  local c i d=$LAB_NAME${1:+/$1}
  for c in "$CG"/*/; do
    for i in {1..100}; do
      [[ -d $c$d ]] || break
      find "$c$d" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.05; done
    [[ ! -d $c$d ]] || die "cgroup $c$d is still in use"; done; }

# ---------------------------------------------------------------- inside: first process of a host
as_host() { # runs as pid 1 of fresh net/mnt/uts/ipc/pid namespaces
  local h=$1 outer st t; enter_cgroup "$h"
  read -r outer _ </proc/self/stat             # still the caller's /proc, so this is the pid as seen outside
  st=$(starttime "$outer"); echo "$outer $st" >"$RUN/$h/pid.new"; mv "$RUN/$h/pid.new" "$RUN/$h/pid"
  hostname "$h"
  # let go of other engines' mounts that unshare copied: they would pin their namespaces and layers
  while read -r t; do [[ $t == / ]] || umount -l "$t" 2>/dev/null || true
  done < <(awk '{for(i=7;i<=NF;i++)if($i=="-"){f=$(i+1);break}; if(f=="nsfs"||f=="overlay")print $5}' /proc/self/mountinfo | tac)
  # private /run (docker, containerd, netns, xtables.lock live there); only the lab's own folder is shared
  local stage=$LAB_DATA/$h/.stage; mkdir -p "$stage"
  mount --bind "$RUN" "$stage"; mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$RUN" /run/lock /run/.cg; mount --move "$stage" "$RUN"
  # a /sys that shows this network namespace; the cgroup mounts move over
  mount --move "$CG" /run/.cg; umount -l /sys; mount -t sysfs sysfs /sys; mount --move /run/.cg "$CG"; rmdir /run/.cg
  umount -l /proc; mount -t proc proc /proc
  # own /etc/docker, hosts and resolv.conf (the switch has no DNS: a lookup fails at once instead of hanging)
  mkdir -p "$LAB_DATA/$h/etc-docker"; if [[ -d /etc/docker ]]; then mount --bind "$LAB_DATA/$h/etc-docker" /etc/docker; fi
  { echo "127.0.0.1 localhost"; echo "$LAB_NET.1 sw registry"; for t in {1..40}; do echo "$LAB_NET.$((10+t)) h$t"; done; } >"$LAB_DATA/$h/hosts"
  echo "nameserver $LAB_NET.1" >"$LAB_DATA/$h/resolv.conf"
  mount --bind "$LAB_DATA/$h/hosts" /etc/hosts; mount --bind "$LAB_DATA/$h/resolv.conf" "$(readlink -f /etc/resolv.conf)"
  ip link set lo up
  echo ready >"$RUN/$h/ready.new"; mv "$RUN/$h/ready.new" "$RUN/$h/ready"
  read -r _ <"$RUN/$h/go"                      # blocks until the cable is plugged in
  [[ $h == sw || -n ${LAB_NO_ENGINE:-} ]] || as_engine "$h"
  trap : TERM INT HUP; sleep infinity &        # pid 1 stays and reaps orphans
  while :; do wait || true; done
}
as_engine() { # start the engine in the background; also entered by nsenter for "lab start" on a live host
  local h=$1; rm -f "$(sock "$h")"; ln -sfn "$(sock "$h")" /run/docker.sock
  export LAB_HOST=$h LAB_IP; LAB_IP=$(ip_of "$h"); export LAB_SOCK; LAB_SOCK=$(sock "$h")
  export LAB_HOSTDATA=$LAB_DATA/$h LAB_CGROUP=/$LAB_NAME/$h
  if [[ -n ${LAB_ENGINE:-} ]]; then setsid "$LAB_ENGINE" </dev/null >>"$LAB_DATA/$h/engine.log" 2>&1 9>&- &
  else rm -f /run/docker.pid
    # shellcheck disable=SC2086
    setsid dockerd -H "unix://$LAB_SOCK" --data-root "$LAB_DATA/$h/docker" --exec-root /run/docker --pidfile /run/docker.pid \
      --cgroup-parent "/$LAB_NAME/$h" --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --label "lab.host=$h" \
      ${LAB_DOCKERD_FLAGS:-} </dev/null >>"$LAB_DATA/$h/engine.log" 2>&1 9>&- &
  fi
  echo $! >"$RUN/$h/engine.pid"                # setsid does not fork here: this is the engine's pid inside the host
}

# ---------------------------------------------------------------- outside
boot() { # boot H: namespaces, cable, engine; does not wait for the engine. No-op when alive.
  local h=$1 p i; alive "$h" && return 0
  mkdir -p "$RUN/$h" "$LAB_DATA/$h"; rm -f "$RUN/$h"/{pid,engine.pid,ready,go,docker.sock}; mkfifo "$RUN/$h/go"
  setsid unshare --mount --uts --ipc --net --pid --fork --propagation private "$SELF" __host "$h" \
    </dev/null >>"$LAB_DATA/$h/boot.log" 2>&1 9>&- &
  until_ 20 "host $h to come up (see $LAB_DATA/$h/boot.log)" test -e "$RUN/$h/ready"
  p=$(pid_of "$h") || die "host $h died: $(tail -3 "$LAB_DATA/$h/boot.log")"
  if [[ $h == sw ]]; then
    nsenter -t "$p" -n sh -ec "
      ip link add br0 type bridge forward_delay 0 mcast_snooping 0; ip addr add $LAB_NET.1/24 dev br0; ip link set br0 up
      echo 0 >/proc/sys/net/ipv4/ip_forward
      echo 0 >/proc/sys/net/ipv4/icmp_ratelimit # else the DNS refusals are thinned out and lookups hang for 5 s
      for f in iptables ip6tables arptables; do [ ! -e /proc/sys/net/bridge/bridge-nf-call-\$f ] || echo 0 >/proc/sys/net/bridge/bridge-nf-call-\$f; done"
  else
    i=$(idx "$h"); swip link del "p-$h" 2>/dev/null || true
    swip link add "p-$h" type veth peer name eth0 netns "$p"
    swip link set "p-$h" master br0 up
    nsenter -t "$p" -n sh -ec "ip link set eth0 address $(printf '02:77:00:00:00:%02x' "$i") up
      ip addr add $(ip_of "$h")/24 dev eth0; ip route add default via $LAB_NET.1"
  fi
  echo go >"$RUN/$h/go"
}
wait_engines() { local h; [[ -n ${LAB_NO_ENGINE:-} ]] || for h; do until_ 60 "engine of $h (lab log $h)" ping_engine "$h"; done; }
off() { # off H: SIGKILL the host's init; the kernel ends the whole pid namespace with it
  local p t0; p=$(pid_of "$1") || return 0
  kill -KILL "$p"; t0=$SECONDS
  # the thaw is needed should it be frozen: a frozen v1 group does not act on SIGKILL
  thaw1 "$1"; while [[ -d /proc/$p && -n $(starttime "$p" || true) ]]; do (( SECONDS - t0 < 20 )) || die "$1 (pid $p) does not end"; sleep 0.01; done
  rm -f "$RUN/$1"/{pid,engine.pid,ready,go,docker.sock}; }
thaw1() { local f=$CG/freezer/$LAB_NAME/$1/freezer.state; if [[ -f $f ]]; then echo THAWED >"$f"; fi; }
unplug() { swip link set "p-$1" down 2>/dev/null || true; }
engine_pid() { # outer pid of the engine: the process of the host's own group that has the noted pid inside
  local q in; in=$(cat "$RUN/$1/engine.pid" 2>/dev/null) || return 1
  for q in $(cat "$CG/memory/$LAB_NAME/$1/cgroup.procs" 2>/dev/null); do
    if [[ $(awk '/^NSpid/{print $NF}' "/proc/$q/status" 2>/dev/null) == "$in" ]]; then echo "$q"; return; fi; done; return 1; }

c_up() {
  [[ ${1:-} =~ ^[0-9]+$ ]] && (( $1 >= 1 && $1 <= 240 )) || die "usage: lab up N"
  [[ $EUID == 0 ]] || die "must be root"
  local b i hs=(); for b in unshare nsenter ip curl flock awk; do command -v $b >/dev/null || die "missing: $b"; done
  [[ -n ${LAB_NO_ENGINE:-}${LAB_ENGINE:-} ]] || command -v dockerd >/dev/null || die "missing: dockerd"
  lock; boot sw; for ((i = 1; i <= $1; i++)); do hs+=("h$i"); boot "h$i"; done; weigh "$1"
  wait_engines "${hs[@]}"; }
c_down() {
  lock; local h
  for h in $(hosts); do alive "$h" && { unplug "$h"; }; done || true
  for h in $(hosts); do off "$h"; done; if [[ -d $RUN/sw ]]; then off sw; fi
  drop_cgroup
  if [[ ${1:-} != --keep ]]; then rm -rf --one-file-system "$LAB_DATA"; fi
  rm -rf --one-file-system "$RUN"
  ! grep -qE " $RUN| $LAB_DATA" /proc/self/mountinfo || die "mounts are left under $RUN or $LAB_DATA"; }
c_exec() {
  local h=${1:?usage: lab exec H CMD...} p; shift; (( $# )) || set -- bash
  p=$(need "$h"); enter_cgroup "$h/_exec"
  export DOCKER_HOST; DOCKER_HOST=unix://$(sock "$h"); export LAB_HOST=$h LAB_IP; LAB_IP=$(ip_of "$h"); unset DOCKER_CONTEXT
  trap - ERR; exec nsenter -t "$p" -m -u -i -n -p --wd=/ -- "$@"; }
c_all() { local h r=0; for h in $(live_hosts); do "$SELF" exec "$h" "$@" 2>&1 | sed "s/^/$h: /" || r=1; done; return $r; }
c_kill()  { lock; local h; for h; do idx "$h" >/dev/null; need "$h" >/dev/null; unplug "$h"; done
            for h; do off "$h"; swip link del "p-$h" 2>/dev/null || true; drop_cgroup "$h"; done; }
c_crash() { lock; local h p; for h; do need "$h" >/dev/null; p=$(engine_pid "$h") || die "no dockerd in $h"; kill -KILL "$p"; done; }
c_stop()  { lock; local h p; for h; do need "$h" >/dev/null; thaw1 "$h"
              if p=$(engine_pid "$h"); then kill -TERM "$p"; until_ 60 "dockerd of $h to stop" test ! -d "/proc/$p"; fi
              off "$h"; swip link del "p-$h" 2>/dev/null || true; drop_cgroup "$h"; done; }
c_start() { lock; local h p; need sw >/dev/null
  for h; do idx "$h" >/dev/null; [[ -d $LAB_DATA/$h ]] || die "no such host: $h (lab up N makes hosts)"
    if ! p=$(pid_of "$h"); then boot "$h"
    elif ! ping_engine "$h"; then (enter_cgroup "$h"; exec nsenter -t "$p" -m -u -i -n -p -- "$SELF" __engine "$h") 9>&-; fi; done
  wait_engines "$@"; }
c_freeze() { local h f; for h; do need "$h" >/dev/null; f=$CG/freezer/$LAB_NAME/$h/freezer.state; echo FROZEN >"$f"
             until_ 10 "$h to freeze" grep -q FROZEN "$f"; done; }
c_thaw()   { local h; for h; do need "$h" >/dev/null; thaw1 "$h"; done; }
c_partition() { (( $# )) || die "usage: lab partition H..."
  lock; local h n=1; for h; do need "$h" >/dev/null; done
  while swip link show "br$n" >/dev/null 2>&1; do n=$((n+1)); done
  swip link add "br$n" type bridge forward_delay 0 mcast_snooping 0; swip link set "br$n" up
  for h; do swip link set "p-$h" master "br$n"; done; echo "island br$n: $*"; }
c_cut() { local one=; if [[ ${1:-} == --oneway ]]; then one=1; shift; fi; (( $# == 2 )) || die "usage: lab cut [--oneway] A B"
  local a b; a=$(need "$1"); b=$(need "$2")
  nsenter -t "$b" -n iptables -w -t raw -I PREROUTING -i eth0 -s "$(ip_of "$1")" -j DROP
  [[ -n $one ]] || nsenter -t "$a" -n iptables -w -t raw -I PREROUTING -i eth0 -s "$(ip_of "$2")" -j DROP; }
# iptables makes the table that it is to flush: a host without a cut is let alone.
heal_raw() { local cuts; cuts=$(nsenter -t "$1" -n iptables -w -t raw -S PREROUTING)
  [[ $cuts != *-A* ]] || nsenter -t "$1" -n iptables -w -t raw -F PREROUTING; }
c_heal() { lock; local h p b; (( $# )) || { set -- $(live_hosts); }
  for h; do p=$(need "$h"); swip link set "p-$h" master br0; heal_raw "$p"; done
  for b in $(swip -br link show type bridge | awk '$1!="br0"{print $1}'); do
    [[ -n $(swip -br link show master "$b") ]] || swip link del "$b"; done; }
rss() { awk '/^VmRSS/{print $2}' "/proc/$1/status" 2>/dev/null || true; } # a process may end meanwhile
c_ls() { # memory: RSS of the host's own processes by kind (containers are in groups of their own and not counted)
  local h p q st e d k s o n c m f='%-5s %-12s %-9s %-5s %-7s %7s %10s %6s %6s %5s  %s\n'
  [[ -d $RUN ]] || { echo "no lab ($RUN)"; return 0; }
  # shellcheck disable=SC2059
  printf "$f" HOST IP STATE SWTCH PID ENGINE CONTAINERD SHIMS OTHER CONTS SOCKET
  for h in $(hosts); do
    # shellcheck disable=SC2059
    if ! p=$(pid_of "$h"); then printf "$f" "$h" "$(ip_of "$h")" off - - - - - - - "$(sock "$h")"; continue; fi
    st=up d=0 k=0 s=0 o=0 n=0; e=$(engine_pid "$h" || true)
    if grep -q FROZEN "$CG/freezer/$LAB_NAME/$h/freezer.state" 2>/dev/null; then st=frozen; elif ! ping_engine "$h"; then st=noengine; fi
    for q in $(cat "$CG/memory/$LAB_NAME/$h/cgroup.procs" 2>/dev/null); do
      [[ $q != "$p" ]] || continue
      c=$(cat "/proc/$q/comm" 2>/dev/null || true); m=$(rss "$q"); m=${m:-0}
      case $q/$c in "$e"/*) d=$m;; */containerd) k=$((k+m));; */containerd-shim*) s=$((s+m)); n=$((n+1));; */sleep) ;; *) o=$((o+m));; esac; done
    # shellcheck disable=SC2059
    printf "$f" "$h" "$(ip_of "$h")" $st "$(swip -o link show "p-$h" | grep -o 'master [^ ]*' | cut -d' ' -f2)" "$p" \
      "$((d/1024))M" "$((k/1024))M" "$((s/1024))M" "$((o/1024))M" "$n" "$(sock "$h")"
  done; }

# A docker-archive from a root file system tar, without an engine: the same bytes in, the same image id out.
wrap() { # wrap NAME ROOTFS.tar OUT.tar
  local name=$1 w=$TMP/wrap; [[ ${name##*/} == *:* ]] || name=$name:latest
  mkdir -p "$w/l"; cp "$2" "$w/l/layer.tar"
  local diff; diff=$(sha256sum "$2" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"lab image"}]}' "$diff" >"$w/config.json"
  local id; id=$(sha256sum "$w/config.json" | cut -d' ' -f1); mv "$w/config.json" "$w/$id.json"; mv "$w/l" "$w/$diff"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]' "$id" "$name" "$diff" >"$w/manifest.json"
  tar -C "$w" -cf "$3" manifest.json "$id.json" "$diff"; rm -rf "$w"; }
c_image() {
  local name=${1:?usage: lab image NAME PATH} path=${2:?usage: lab image NAME PATH} h got p pids=() w
  [[ -n $(live_hosts) ]] || die "no live host"; TMP=${TMP:-$(mktemp -d "$LAB_DATA/.tmp.XXXXXX")}; w=$TMP
  if [[ -d $path ]]; then tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$path" -cf "$w/rootfs.tar" .; wrap "$name" "$w/rootfs.tar" "$w/i.tar"
  elif tar -tf "$path" | grep -qx manifest.json; then cp "$path" "$w/i.tar"
  else tar -tf "$path" >/dev/null || die "not a tar: $path"; wrap "$name" "$path" "$w/i.tar"; fi
  for h in $(live_hosts); do
    ( got=$(docker -H "unix://$(sock "$h")" load -q -i "$w/i.tar") || die "load failed on $h"; got=${got#Loaded image: }; got=${got#Loaded image ID: }
      docker -H "unix://$(sock "$h")" tag "$(head -1 <<<"$got")" "$name" ) & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p" || die "an engine did not take the image"; done
  for h in $(live_hosts); do echo "$h $(docker -H "unix://$(sock "$h")" image inspect -f '{{.Id}}' "$name") $name"; done; }
c_busybox() {
  local name=${1:-busybox:lab} r a
  [[ -n $(live_hosts) ]] || die "no live host"; TMP=$(mktemp -d "$LAB_DATA/.tmp.XXXXXX"); r=$TMP/root
  mkdir -p "$r"/{bin,etc,proc,sys,dev,root,tmp,var/www}; chmod 1777 "$r/tmp"; cp -L /bin/busybox "$r/bin/busybox"
  # "busybox --list" names busybox itself: a link of that name would replace the program by a loop
  for a in $(/bin/busybox --list); do a=${a##*/}; if [[ $a != busybox ]]; then ln -s busybox "$r/bin/$a"; fi; done
  echo 'root:x:0:0:root:/root:/bin/sh' >"$r/etc/passwd"; echo 'root:x:0:' >"$r/etc/group"
  c_image "$name" "$r"; }
c_log() { tail -n "${2:-40}" "$LAB_DATA/${1:?usage: lab log H [N]}/engine.log"; }
c_env() { need "${1:?usage: lab env H}" >/dev/null; echo "export DOCKER_HOST=unix://$(sock "$1")"; }

cmd=${1:-help}; (( $# )) && shift
case $cmd in
  __host) as_host "$@";;  __engine) as_engine "$@"; disown -a;;
  up|down|ls|exec|all|image|busybox|partition|cut|heal|kill|crash|stop|freeze|thaw|start|log|env) "c_$cmd" "$@";;
  help|-h|--help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$SELF";;
  *) die "unknown command: $cmd (lab help)";;
esac
