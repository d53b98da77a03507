import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { onDirectory, quotaGroups } from './btrfs.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerSpec, RuntimeOptions } from './runtime.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let image: TestImage;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  image = await registry.push('test/base', [baseLayer]);
  const runtime = createRuntime(options);
  await runtime.reconcile();
  await runtime.ensureImage(image);
  await runtime.destroy();
});

afterAll(async () => {
  await createRuntime(options).destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

/** An agent in a process group of its own, when it has started `specs`. */
async function startAgent(specs: ContainerSpec[], churn: ContainerSpec[]): Promise<ChildProcess> {
  const argument = JSON.stringify({ options, specs, churn });
  const script = fileURLToPath(new URL('./testing/crash-child.ts', import.meta.url));
  const child = spawn(process.execPath, ['--conditions=@bulkhead/source', script, argument], {
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout?.on('data', (text) => (said += String(text)));
  await until(
    'the agent is ready',
    () => said.includes('ready') || child.exitCode !== null,
    25_000,
  );
  expect(child.exitCode).toBeNull();
  return child;
}

async function killGroup(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  process.kill(-(child.pid ?? 0), 'SIGKILL');
  await ended;
}

it('containers outlive the killed agent and are carried on with by the next', async () => {
  const spec = containerSpec(image, [
    'sh',
    '-c',
    'n=0; while :; do echo $((n=n+1)); sleep 0.05; done',
  ]);
  await killGroup(await startAgent([spec], []));
  const runtime = createRuntime(options);
  await runtime.reconcile();
  const found = await runtime.find(spec.id);
  expect(found).toMatchObject({ state: 'running', tenantId: spec.tenantId });
  expect(await runtime.start(spec)).toEqual(found);

  const { lines, cursor } = await runtime.readLogs(spec.id, null, 10_000);
  expect(lines[0]?.text).toBe('1');
  await until(
    'it writes on',
    async () => (await runtime.readLogs(spec.id, cursor, 10)).lines.length > 2,
  );
  const waiting = runtime.waitExit(spec.id, AbortSignal.timeout(20_000));
  process.kill(found?.pid ?? 0, 'SIGKILL');
  expect(await waiting).toMatchObject({ exitCode: 137, signal: 'SIGKILL', oomKilled: false });
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
}, 60_000);

// The moments are spread over all steps of starts, stops, restarts and removals.
it.each(Array.from({ length: 10 }, (_, n) => 7 + n * 23))(
  'an agent killed %d ms into its work leaves nothing behind',
  async (ms) => {
    const resources = { ...defaultResources, memoryMiB: 64, diskMiB: 16 };
    const writes = ['sh', '-c', 'echo x > /mark; exec sleep 1000'];
    const keep = containerSpec(image, writes, { tenantId: 'kept', resources });
    const churn = Array.from({ length: 3 }, () =>
      containerSpec(image, writes, { tenantId: 'churned', resources }),
    );
    const agent = await startAgent([keep], churn);
    await new Promise((resolve) => setTimeout(resolve, ms));
    await killGroup(agent);

    const runtime = createRuntime(options);
    await runtime.reconcile();
    expect(await runtime.find(keep.id)).toMatchObject({ state: 'running' });
    const present = await runtime.list();
    for (const container of present) expect(['running', 'stopped']).toContain(container.state);
    const running = present.filter((c) => c.state === 'running').map((c) => c.id);
    expect(interfaces()).toBe(running.length);
    const layers = `${options.stateDir}/layers`;
    expect(readdirSync(layers).toSorted()).toEqual(running.toSorted());
    for (const id of running)
      expect(await runtime.diskUsage(id)).toMatchObject({ limit: 16 * 1024 * 1024 });
    await until(
      'there is a quota group for each layer and no more',
      () => onDirectory(layers, (fd) => quotaGroups(fd).length) === running.length,
      40_000,
    );
    expect(readdirSync(`${options.stateDir}/containers`).toSorted()).toEqual(
      present.map((c) => c.id).toSorted(),
    );

    for (const { id } of present) await runtime.remove(id);
    expect(await withoutShared()).toEqual([]);
    await runtime.destroy();
    expect(await traces(options)).toEqual([]);
  },
  100_000,
);

it('a pool that nothing holds any more goes with the killed agent: mount and loop device', async () => {
  await killGroup(await startAgent([], []));
  const held = async (): Promise<string[]> =>
    (await traces(options)).filter((trace) => /^(loop|mountinfo)/.test(trace));
  await until('nothing is left of it', async () => (await held()).length === 0);
  const runtime = createRuntime(options);
  await runtime.reconcile();
  expect(await runtime.facts()).toMatchObject({ diskLimit: 'btrfs', diskPoolMiB: 512 });
  await runtime.destroy();
}, 60_000);

const interfaces = (): number =>
  readdirSync('/sys/class/net').filter((name) => name.startsWith(`${options.vethPrefix}-`)).length;

/** Traces, but for what a runtime without containers has. */
async function withoutShared(): Promise<string[]> {
  const roots = readdirSync('/sys/fs/cgroup').map(
    (root) => `/sys/fs/cgroup/${root}/${options.cgroup}`,
  );
  const cgroups = roots
    .filter((root) => existsSync(root))
    .flatMap((root) => readdirSync(root, { withFileTypes: true }));
  const tenants = cgroups
    .filter((entry) => entry.isDirectory() && entry.name !== '.conmon')
    .map((entry) => entry.name);
  const rest = (await traces(options)).filter(
    (trace) => !/^(cgroup|nftables|policy|loop|pool|run directory)/.test(trace),
  );
  return [...tenants, ...rest];
}
