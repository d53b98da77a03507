/** What runs inside the machine, as text: its first process in memory, and the one after it. */

/** Loads the modules, mounts this machine's file system read-only below a disk of its own, and goes there. */
export const firstProcess = (modules: readonly string[]): string => `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
${modules.map((name) => `insmod /m/${name}`).join('\n')}
share() { mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 "$1" "$2"; }
share root /lower
mount -t ext4 /dev/vda /disk
chmod 1777 /disk/tmp
mount -t overlay overlay -o lowerdir=/lower,upperdir=/disk/upper,workdir=/disk/work /new
mount --move /proc /new/proc; mount --move /sys /new/sys; mount --move /dev /new/dev
# Containers' layers need a file system of their own below them, not an overlay.
mount --bind /disk/tmp /new/tmp
mkdir -p /new/lib/modules
share modules /new/lib/modules
exec switch_root /new /bin/sh /bulkhead-vm-init
`;

export const exitMarker = 'BULKHEAD-VM-EXIT';

/** Runs `command` with pure cgroup v2, says how it ended, and switches off. */
export const secondProcess = (clone: string, command: string): string => `
export PATH=${clone}/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root NO_COLOR=1 CI=1
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /run
ln -sf /proc/self/fd /dev/fd
# skopeo maps a file here into memory while it grows, which an overlay over 9p does not bear.
mkdir -p /var/lib/containers; mount -t tmpfs tmpfs /var/lib/containers
ip link set lo up; hostname vm; ulimit -n 65536
cd ${clone}
( ${command} ) 2>&1
echo "${exitMarker} $?"
sync
echo o > /proc/sysrq-trigger
sleep 5
`;
