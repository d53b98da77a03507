import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ensureDirectory } from './files.ts';
import { layout, type Layout } from './settings.ts';
import {
  ensureRunning,
  ensureService,
  ensureSupervisor,
  findSupervisor,
  lockHolder,
  stopService,
  stopSupervisor,
  type Service,
} from './supervise.ts';
import { until } from './until.ts';

// Real runit, as root, in a state directory of its own.
let paths: Layout;
const nobody = { uid: 65_534, gid: 65_534 };
const clone = tmpdir();

beforeEach(async () => {
  paths = layout(await mkdtemp('/tmp/bulkhead-supervise-'));
  await ensureDirectory(join(paths.run, '..'), 0o711);
  for (const dir of [paths.clone, paths.service]) await ensureDirectory(dir, 0o755);
  for (const dir of [paths.run, paths.log]) await ensureDirectory(dir, 0o711);
});
afterEach(async () => {
  await stopService(paths, 'sleeper', 5);
  await stopSupervisor(paths);
  await rm(join(paths.run, '..'), { recursive: true, force: true });
});

const pidOf = async () => {
  const pid = await lockHolder(paths, 'sleeper');
  if (pid === null) throw new Error('no sleeper runs');
  return pid;
};
const sleeper = (more: Partial<Service> = {}): Service => ({
  name: 'sleeper',
  owner: nobody,
  command: ['sleep', '1000'],
  env: { COLOUR: "it's blue" },
  seesClone: true,
  check: async () => {
    const command = await readFile(`/proc/${await pidOf()}/cmdline`, 'utf8');
    if (!command.startsWith('sleep')) throw new Error('not yet');
  },
  ...more,
});
async function start(service = sleeper()): Promise<number> {
  const restart = await ensureService(paths, service, clone);
  await ensureSupervisor(paths);
  await ensureRunning(paths, service, restart);
  return pidOf();
}
const sleepers = async () => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')),
  );
  const ours = pids.filter((_, index) => commands[index]?.includes("COLOUR=it's blue"));
  const names = await Promise.all(
    ours.map((pid) => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')),
  );
  return names.filter((name) => name === 'sleep\n').length;
};
const parentOf = async (pid: number) =>
  Number(/^PPid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);

test('a service has its user, its environment and nothing more', async () => {
  const pid = await start();
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  expect(status).toMatch(/^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
  expect(status).toMatch(/^Groups:\s*$/m);
  expect(status).toMatch(/^CapBnd:\s+0+$/m);
  expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
  const environment = (await readFile(`/proc/${pid}/environ`, 'utf8')).split('\0');
  expect(environment).toContain("COLOUR=it's blue");
  expect(environment.filter((entry) => entry !== '').map((entry) => entry.split('=')[0])).toEqual(
    expect.arrayContaining(['PATH', 'COLOUR']),
  );
  expect(environment.some((entry) => entry.startsWith('VITEST'))).toBe(false);
});

test('started again it is left alone; with another environment it is restarted', async () => {
  const pid = await start();
  expect(await start()).toBe(pid);
  expect(await start(sleeper({ env: { COLOUR: "it's blue", SIZE: '2' } }))).not.toBe(pid);
  expect(await sleepers()).toBe(1);
});

test('killed, it comes back by itself', async () => {
  const pid = await start();
  process.kill(pid, 'SIGKILL');
  await until(
    async () => {
      expect(await pidOf()).not.toBe(pid);
      await sleeper().check();
    },
    10_000,
    'it does not come back',
  );
});

test('with its runsv killed it is never doubled, and the next start supervises it again', async () => {
  const pid = await start();
  const runsv = await parentOf(pid);
  process.kill(runsv, 'SIGKILL');
  const heir = join(paths.service, 'sleeper/supervise/pid');
  // The next copy is there, waiting at the lock, while the first still runs.
  await until(
    async () => {
      const waiting = Number(await readFile(heir, 'utf8'));
      expect(waiting).not.toBe(pid);
      expect(await readFile(`/proc/${waiting}/comm`, 'utf8')).toBe('flock\n');
    },
    15_000,
    'no second copy waits',
  );
  expect(await sleepers()).toBe(1);
  expect(await pidOf()).toBe(pid);

  const next = await start();
  expect(next).not.toBe(pid);
  expect(await sleepers()).toBe(1);
  expect(await readFile(`/proc/${await parentOf(next)}/comm`, 'utf8')).toBe('runsv\n');
});

test('with runsvdir killed the service runs on, and the next start puts runsvdir back', async () => {
  const pid = await start();
  const runsvdir = await findSupervisor(paths);
  process.kill(runsvdir ?? 0, 'SIGKILL');
  await until(
    async () => expect(await findSupervisor(paths)).toBeNull(),
    5_000,
    'runsvdir does not end',
  );
  expect(await start()).toBe(pid);
  expect(await findSupervisor(paths)).not.toBeNull();
  expect(await sleepers()).toBe(1);
});

test('stopping ends everything, also what lost its supervisors, and works twice', async () => {
  const pid = await start();
  process.kill((await findSupervisor(paths)) ?? 0, 'SIGKILL');
  process.kill(await parentOf(pid), 'SIGKILL');
  for (let time = 0; time < 2; time += 1) {
    await stopService(paths, 'sleeper', 5);
    await stopSupervisor(paths);
  }
  expect(await sleepers()).toBe(0);
  expect(await lockHolder(paths, 'sleeper')).toBeNull();
});
