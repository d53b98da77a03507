/**
 * `npm run test:vm [-- COMMAND]`: runs the runtime's specs (or COMMAND, a shell line) on another
 * kernel, where cgroups are pure v2. The machine is QEMU with this machine's own file system,
 * read-only, below a disk that is thrown away; the kernel is Debian's, fetched as a package and not
 * installed. It has no network but loopback. Emulated in software, since a hypervisor is rarely at
 * hand: about ten times slower, so the specs' deadlines are longer. Needs about 4 GiB of memory.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { exitMarker, firstProcess, secondProcess } from './guest.ts';

const run = promisify(execFile);
const clone = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
const cache = join(clone, '.bulkhead/cache/vm');
const deadlineMs = 60 * 60_000;
const needed = [
  'virtio_pci',
  'virtio_blk',
  '9pnet_virtio',
  '9p',
  'overlay',
  'ext4',
  'crc32c_generic',
];

const specs = ['limits', 'host-runtime', 'life', 'disk', 'network'].map(
  (name) => `libs/runtime/src/${name}.spec.ts`,
);
const specLine = `vitest run --no-file-parallelism --reporter=verbose --testTimeout=600000 --hookTimeout=600000 ${specs.join(' ')}`;

/** Debian's kernel, unpacked in the cache. */
async function fetchKernel(): Promise<{ dir: string; version: string }> {
  const { stdout } = await run('apt-cache', ['depends', 'linux-image-amd64']);
  const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  if (name === undefined) throw new Error('apt knows no linux-image-amd64: run apt-get update');
  const version = name.replace('linux-image-', '');
  const dir = join(cache, name);
  if (!existsSync(join(dir, 'boot', `vmlinuz-${version}`))) {
    await mkdir(dir, { recursive: true });
    await run('apt-get', ['download', name], { cwd: cache });
    const archive = (await readdir(cache)).find((file) => file.startsWith(`${name}_`));
    if (archive === undefined) throw new Error(`apt-get brought no ${name}`);
    await run('dpkg-deb', ['-x', join(cache, archive), dir]);
    await run('depmod', ['-b', dir, version]);
    await rm(join(cache, archive));
  }
  return { dir, version };
}

/** busybox, the modules it takes to reach the disks, and the first process. */
async function makeInitialDisk(at: string, kernel: { dir: string; version: string }) {
  const tree = join(at, 'initial');
  for (const name of ['bin', 'm', 'proc', 'sys', 'dev', 'lower', 'disk', 'new'])
    await mkdir(join(tree, name), { recursive: true });
  await copyFile('/usr/bin/busybox', join(tree, 'bin/busybox'));
  const modules: string[] = [];
  for (const name of needed) {
    const options = ['-d', kernel.dir, '-S', kernel.version, '--show-depends', name];
    const { stdout } = await run('modprobe', options);
    for (const [, file = ''] of stdout.matchAll(/^insmod (\S+)/gm)) {
      if (modules.includes(basename(file))) continue;
      modules.push(basename(file));
      await copyFile(file, join(tree, 'm', basename(file)));
    }
  }
  await writeFile(join(tree, 'init'), firstProcess(modules), { mode: 0o755 });
  const archive = join(at, 'initrd');
  // cpio reads names from its input; find gives them.
  await run('sh', [
    '-c',
    'cd "$1" && find . | cpio --quiet -o -H newc > "$2"',
    'sh',
    tree,
    archive,
  ]);
  return archive;
}

async function makeDisk(at: string, command: string): Promise<string> {
  const tree = join(at, 'disk');
  for (const name of ['upper', 'work', 'tmp']) await mkdir(join(tree, name), { recursive: true });
  await writeFile(join(tree, 'upper/bulkhead-vm-init'), secondProcess(clone, command));
  const image = join(at, 'disk.img');
  await run('truncate', ['--size=6G', image]);
  await run('mkfs.ext4', ['-q', '-F', '-d', tree, image]);
  return image;
}

/** Runs the machine with its console on ours; the code that the command ended with, 1 when it never said. */
function boot(kernel: { dir: string; version: string }, initial: string, disk: string) {
  const share = (path: string, tag: string) =>
    `local,path=${path},mount_tag=${tag},security_model=none,readonly=on,multidevs=remap`;
  const machine = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '3072'],
      ...['-nodefaults', '-nographic', '-no-reboot', '-serial', 'stdio', '-monitor', 'none'],
      ...['-kernel', join(kernel.dir, `boot/vmlinuz-${kernel.version}`), '-initrd', initial],
      ...['-append', 'console=ttyS0 quiet loglevel=3 panic=1'],
      ...['-drive', `file=${disk},if=virtio,format=raw,cache=unsafe`],
      ...['-virtfs', share('/', 'root')],
      ...['-virtfs', share(join(kernel.dir, 'lib/modules'), 'modules')],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], timeout: deadlineMs, killSignal: 'SIGKILL' },
  );
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => machine.kill('SIGKILL'));
  return new Promise<number>((resolve, reject) => {
    let tail = '';
    machine.stdout.setEncoding('utf8').on('data', (text: string) => {
      process.stdout.write(text);
      tail = (tail + text).slice(-4096);
    });
    machine.on('error', reject);
    machine.on('close', () =>
      resolve(Number(new RegExp(`${exitMarker} (\\d+)`).exec(tail)?.[1] ?? 1)),
    );
  });
}

const command = process.argv.slice(2).join(' ') || specLine;
const kernel = await fetchKernel();
const at = await mkdtemp('/tmp/bulkhead-vm-');
try {
  const initial = await makeInitialDisk(at, kernel);
  process.exitCode = await boot(kernel, initial, await makeDisk(at, command));
} finally {
  await rm(at, { recursive: true, force: true });
}
