import {
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run } from './exec.ts';
import { policyRules } from './firewall.ts';
import { runDir } from './run-dir.ts';
import type { ContainerStatus, RuntimeOptions } from './runtime.ts';
import { account } from './testing/account.ts';
import { Agent, AgentKilled } from './testing/agent.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let image: TestImage;
let agent: Agent;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  image = await registry.push('test/base', [baseLayer]);
  agent = new Agent(options);
  await agent.reconcile();
  await agent.call('ensureImage', image);
});

afterAll(async () => {
  await agent.call('destroy');
  await agent.kill();
  expect(await traces(options)).toEqual([]);
  removeState(options);
  await registry.close();
});

/** Nothing here answers requests, so no process of a container has children of its own. */
const count = (present: readonly ContainerStatus[]): Promise<string[]> =>
  account(options, present, [agent.pid], -1);

/**
 * Takes from the host what a reboot takes, at one moment: every process, with them namespaces,
 * interfaces and the pool's mount, then cgroups, rules, and all that was in memory. What stays is
 * the disk, with records that speak of another boot.
 */
async function reboot(): Promise<void> {
  const supervisors = readdirSync('/proc').filter(
    (pid) =>
      /^\d+$/.test(pid) &&
      Number(pid) !== process.pid &&
      text(`/proc/${pid}/cmdline`).includes(options.stateDir),
  );
  const cgroups = readdirSync('/sys/fs/cgroup').flatMap((root) =>
    tree(`/sys/fs/cgroup/${root}/${options.cgroup}`),
  );
  const inside = cgroups.flatMap((path) => text(`${path}/cgroup.procs`).trim().split('\n'));
  for (const pid of new Set([...supervisors, ...inside])) kill(Number(pid));
  // Held still they would not die.
  for (const path of cgroups)
    if (text(`${path}/freezer.state`) !== '') writeFileSync(`${path}/freezer.state`, 'THAWED');
    else if (existsSync(`${path}/cgroup.freeze`)) writeFileSync(`${path}/cgroup.freeze`, '0');
  await agent.kill();
  for (const path of cgroups) await until(`${path} is empty`, () => isRemoved(path));
  await run('nft', ['delete', 'table', 'inet', options.nftTable]);
  for (const rule of policyRules(options.network)) await run('ip', ['rule', 'delete', ...rule]);
  rmSync(realpathSync(runDir(options.stateDir)), { recursive: true });
  for (const id of readdirSync(`${options.stateDir}/containers`)) {
    const file = `${options.stateDir}/containers/${id}/record.json`;
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replace(/"bootId":"[^"]*"/, '"bootId":"the one before"'));
  }
  const onDisk = /^(pool\.img|directory of|link to no run)/;
  await until('nothing is left but what is on disk', async () =>
    (await traces(options)).every((trace) => onDisk.test(trace)),
  );
}

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  if (pid > 0 && existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
}

/** Cgroups, those inside before those around them. */
function tree(path: string): string[] {
  if (!existsSync(path)) return [];
  const below = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...below.flatMap(({ name }) => tree(`${path}/${name}`)), path];
}

/** False while something in there has not ended yet. */
function isRemoved(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
    throw error;
  }
}

it('after a reboot the host is accounted for, and what ran can be started where it was', async () => {
  const command = ['sh', '-c', 'echo up; exec sleep 1000'];
  const [plain, held, ended, half] = ['a', 'b', 'a', 'c'].map((tenant) =>
    containerSpec(image, command, { tenantId: `tenant-${tenant}` }),
  );
  if (!plain || !held || !ended || !half) throw new Error('four');
  const empty = await count([]);
  const { quotaGroups } = await agent.seen();
  await agent.start(plain);
  await agent.start(held);
  await agent.start(ended);
  const said = async (): Promise<string[]> =>
    ((await agent.call('readLogs', plain.id, null, 9)) as { lines: { text: string }[] }).lines.map(
      ({ text }) => text,
    );
  await until('it says so', async () => (await said()).length > 0);
  await agent.call('stop', ended.id, 0);
  await agent.call('pause', held.id);
  const before = await agent.list();
  const counted = await count(before);
  const seen = await agent.seen();
  // The reboot comes in the middle of a start.
  await expect(agent.arm({ step: 'record-starting', action: 'kill' }).start(half)).rejects.toThrow(
    AgentKilled,
  );
  await reboot();

  agent = new Agent(options);
  await agent.reconcile();
  expect(await agent.call('problems')).toEqual([]);
  const after = await agent.list();
  const unknown = { exitCode: null, signal: null, oomKilled: false, rebooted: true };
  expect(after.toSorted((a, b) => a.id.localeCompare(b.id))).toMatchObject([
    { id: plain.id, state: 'stopped', pid: null, exit: unknown },
    { id: held.id, state: 'stopped', pid: null, exit: unknown },
    { id: ended.id, state: 'stopped', pid: null, exit: { exitCode: 137, rebooted: false } },
  ]);
  expect(await agent.seen()).toMatchObject({ layers: [] });

  await agent.start(plain);
  await agent.start(held);
  await agent.call('pause', held.id);
  expect(addresses(await agent.list())).toEqual(addresses(before));
  expect(await count(await agent.list())).toEqual(counted);
  expect(await agent.seen()).toMatchObject({ layers: seen.layers });
  // What it wrote in the boot before is still its log.
  await until('it says so again', async () => (await said()).length > 1);
  expect(await said()).toEqual(['up', 'up']);
  for (const { id } of [plain, held, ended]) await agent.call('remove', id);
  expect(await count(await agent.list())).toEqual(empty);
  // The kernel takes its time to clean up what was deleted.
  await until(
    'the quota groups are gone',
    async () => (await agent.seen()).quotaGroups === quotaGroups,
  );
});

const addresses = (of: readonly ContainerStatus[]): string[] =>
  of.map(({ id, address }) => `${id} ${address}`).toSorted();
