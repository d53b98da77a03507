import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { disksBehind } from './block-devices.ts';

/** A machine with its disk in partitions, a loop-mounted btrfs on one of them, and a volume over two disks. */
function machine() {
  const sys = mkdtempSync(`${tmpdir()}/bulkhead-sys-`);
  onTestFinished(() => rmSync(sys, { recursive: true }));
  mkdirSync(`${sys}/dev/block`, { recursive: true });
  const device = (dir: string, number: string, files: Record<string, string> = {}) => {
    mkdirSync(`${sys}/devices/${dir}`, { recursive: true });
    writeFileSync(`${sys}/devices/${dir}/dev`, `${number}\n`);
    for (const [name, text] of Object.entries(files)) {
      if (name.includes('/')) mkdirSync(`${sys}/devices/${dir}/${name.split('/')[0]}`);
      writeFileSync(`${sys}/devices/${dir}/${name}`, text);
    }
    symlinkSync(`../../devices/${dir}`, `${sys}/dev/block/${number}`);
  };
  device('sda', '8:0');
  device('sda/sda2', '8:2', { partition: '2\n' });
  device('sdb', '8:16');
  device('loop3', '7:3', { 'loop/backing_file': '/var/pool file.img\n' });
  device('dm-0', '253:0');
  for (const disk of ['sda', 'sdb']) {
    mkdirSync(`${sys}/devices/dm-0/slaves`, { recursive: true });
    symlinkSync(`../../${disk}`, `${sys}/devices/dm-0/slaves/${disk}`);
  }
  for (const id of ['1111', '2222'])
    mkdirSync(`${sys}/fs/btrfs/${id}/devices`, { recursive: true });
  symlinkSync('../../../../devices/loop3', `${sys}/fs/btrfs/1111/devices/loop3`);
  for (const disk of ['sda', 'sdb'])
    symlinkSync(`../../../../devices/${disk}`, `${sys}/fs/btrfs/2222/devices/${disk}`);
  const mountinfo = `22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
30 22 0:40 / /state/pool rw,noatime - btrfs /dev/loop3 rw,subvolid=5
31 22 0:41 / /many rw - btrfs /dev/sdb rw
32 22 253:0 / /srv/with\\040space rw master:4 - xfs /dev/mapper/data rw
33 22 0:50 / /run rw - tmpfs tmpfs rw
34 33 8:16 / /run/covered rw - ext4 /dev/sdb rw
35 34 0:51 / /run/covered rw - tmpfs tmpfs rw
`;
  const numbers = new Map([
    ['/dev/loop3', '7:3'],
    ['/dev/sdb', '8:16'],
  ]);
  const view = { mountinfo, sys, numberOf: (name: string) => numbers.get(name) ?? null };
  return (...paths: string[]) => disksBehind(paths, view);
}

test.each([
  ['a partition counts as its disk', ['/var/lib/x'], ['8:0']],
  ['a loop device counts with the disk of its file', ['/state/pool/c/upper'], ['7:3', '8:0']],
  ['each once', ['/state/pool/c', '/state/images'], ['7:3', '8:0']],
  ['every member of a btrfs', ['/many/a'], ['8:0', '8:16']],
  ['a volume and the disks below it', ['/srv/with space/a'], ['253:0', '8:0', '8:16']],
  ['the longest mount point, by whole names', ['/state/pooled'], ['8:0']],
  ['memory has none', ['/run/x'], []],
  ['of two mounts on one point the upper', ['/run/covered/x'], []],
])('%s', (_, paths, disks) => {
  expect(machine()(...paths)).toEqual(disks);
});

test('this machine: what is on a disk has at least one', () => {
  for (const disk of disksBehind(['/'])) expect(disk).toMatch(/^[1-9]\d*:\d+$/);
});
