import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';

/**
 * The block devices on which a container's reads and writes land, found by looking: the writable
 * layer and the image may be on different ones, a file system may span several, a partition is
 * throttled as its whole disk, and a loop device counts together with the disk that holds its file.
 */
export interface DiskView {
  /** /proc/<pid>/mountinfo of the namespace that the paths are in. */
  mountinfo: string;
  /** Where sysfs is mounted. */
  sys: string;
  /** `major:minor` of a device node. */
  numberOf(device: string): string | null;
}

const hostView = (): DiskView => ({
  mountinfo: readFileSync('/proc/thread-self/mountinfo', 'utf8'),
  sys: '/sys',
  numberOf: (device) => {
    const status = statSync(device, { throwIfNoEntry: false });
    if (!status?.isBlockDevice()) return null;
    // As glibc's major() and minor() take st_rdev apart.
    const number = BigInt(status.rdev);
    const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
    const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn & 0xffffffffn);
    return `${major}:${minor}`;
  },
});

/** `major:minor` of every disk behind `paths`, sorted; none for file systems without one, such as tmpfs. */
export function disksBehind(paths: readonly string[], view: DiskView = hostView()): string[] {
  const found = new Set<string>();
  for (const path of paths)
    for (const device of fileSystemDevices(path, view)) addDisk(device, view, found);
  return [...found].sort();
}

/** Devices of the file system that holds `path`. By its mount and not by st_dev: each btrfs subvolume has one of its own that no mount bears. */
function fileSystemDevices(path: string, view: DiskView): string[] {
  const mount = mountOf(path, view.mountinfo);
  if (!mount) return [];
  if (!mount.device.startsWith('0:')) return [mount.device];
  const first = mount.source.startsWith('/') ? view.numberOf(mount.source) : null;
  if (first === null) return [];
  return mount.type === 'btrfs' ? btrfsMembers(first, view) : [first];
}

interface Mount {
  point: string;
  device: string;
  type: string;
  source: string;
}

function mountOf(path: string, mountinfo: string): Mount | null {
  let best: Mount | null = null;
  for (const line of mountinfo.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-');
    if (dash < 0) continue;
    const point = unescape(fields[4] ?? '');
    const holds = path === point || path.startsWith(point === '/' ? '/' : `${point}/`);
    // Of two on one point the later covers the earlier.
    if (!holds || (best && point.length < best.point.length)) continue;
    best = {
      point,
      device: fields[2] ?? '',
      type: fields[dash + 1] ?? '',
      source: unescape(fields[dash + 2] ?? ''),
    };
  }
  return best;
}

/** mountinfo writes space, tab, newline and backslash in octal. */
const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

/** All devices of the btrfs that `member` belongs to. */
function btrfsMembers(member: string, { sys }: DiskView): string[] {
  for (const id of list(`${sys}/fs/btrfs`)) {
    const dir = `${sys}/fs/btrfs/${id}/devices`;
    const members = list(dir).flatMap((name) => readNumber(`${dir}/${name}/dev`) ?? []);
    if (members.includes(member)) return members;
  }
  return [member];
}

function addDisk(device: string, view: DiskView, found: Set<string>): void {
  const link = `${view.sys}/dev/block/${device}`;
  const dir = existsSync(link) ? realpathSync(link) : null;
  if (dir !== null && existsSync(`${dir}/partition`)) {
    const whole = readNumber(`${dir}/../dev`);
    if (whole !== null) addDisk(whole, view, found);
    return;
  }
  if (found.has(device)) return;
  found.add(device);
  if (dir === null) return;
  for (const part of list(`${dir}/slaves`)) {
    const below = readNumber(`${dir}/slaves/${part}/dev`);
    if (below !== null) addDisk(below, view, found);
  }
  const backing = `${dir}/loop/backing_file`;
  if (!existsSync(backing)) return;
  const file = readFileSync(backing, 'utf8').trim();
  for (const below of fileSystemDevices(file, view)) addDisk(below, view, found);
}

function readNumber(file: string): string | null {
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : null;
}

const list = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);
