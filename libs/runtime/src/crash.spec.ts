import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createRuntime } from './host-runtime.ts';
import type { RuntimeOptions } from './runtime.ts';
import { Agent } from './testing/agent.ts';
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

it('containers outlive the killed agent and are carried on with by the next', async () => {
  const spec = containerSpec(image, [
    'sh',
    '-c',
    'n=0; while :; do echo $((n=n+1)); sleep 0.05; done',
  ]);
  const agent = new Agent(options);
  await agent.reconcile();
  await agent.start(spec);
  await agent.kill();
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
  const run = await runtime.exec(spec.id, { command: ['id', '-u'], stdin: false, terminal: null });
  expect(await text(run.stdout)).toBe('0\n');
  const waiting = runtime.waitExit(spec.id, AbortSignal.timeout(20_000));
  process.kill(found?.pid ?? 0, 'SIGKILL');
  expect(await waiting).toMatchObject({ exitCode: 137, signal: 'SIGKILL', oomKilled: false });
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
}, 60_000);

it('a pool that nothing holds any more goes with the killed agent: mount and loop device', async () => {
  const agent = new Agent(options);
  await agent.reconcile();
  await agent.kill();
  const held = async (): Promise<string[]> =>
    (await traces(options)).filter((trace) => /^(loop|mountinfo)/.test(trace));
  await until('nothing is left of it', async () => (await held()).length === 0);
  const runtime = createRuntime(options);
  await runtime.reconcile();
  expect(await runtime.facts()).toMatchObject({ diskLimit: 'btrfs', diskPoolMiB: 512 });
  await runtime.destroy();
}, 60_000);
