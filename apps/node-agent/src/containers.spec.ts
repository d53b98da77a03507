/** The agent on real containers: what its fake host can only claim. */
import {
  defaultResources,
  healthCheck,
  type InstanceReport,
  type RunningSpec,
} from '@bulkhead/protocol';
import { createRuntime, type ContainerRuntime, type RuntimeOptions } from '@bulkhead/runtime';
import {
  baseLayer,
  removeState,
  startRegistry,
  testOptions,
  traces,
  type TestImage,
  type TestRegistry,
} from '@bulkhead/runtime/testing';
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer } from './testing.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let image: TestImage;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  image = await registry.push('test/base', [baseLayer]);
});
afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

async function platform() {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.over(runtime, nats);
  await host.startAgent({ firstDelay: 60_000, longestDelay: 60_000 });
  const want = async (instance: string, command: string[], over: Partial<RunningSpec> = {}) => {
    const resources = { ...defaultResources, memoryMiB: 32, diskMiB: 64 };
    await plane.want(await host.spec({ image, command, resources, ...over, instance }));
  };
  const remove = async (...instances: string[]) => {
    for (const instance of instances)
      await plane.want({ ...gone({ instance, generation: 100 }), graceSeconds: 0 });
    for (const instance of instances) await plane.state(instance, 'gone');
  };
  return { nats, plane, host, want, remove };
}

const sh = (script: string) => ['sh', '-c', script];
const id = (name: string) => `i${name.padEnd(12, '0')}`;

test('each way to end is told apart, in a word for scripts and in words', async () => {
  const { plane, want, remove } = await platform();
  const stale = healthCheck.parse({
    ...{ kind: 'command', command: sh('echo stale; exit 2') },
    ...{ failureThreshold: 1, startupGraceSeconds: 0 },
  });
  const missing = { ...image, digest: `sha256:${'a'.repeat(64)}` };
  const ways: [
    string,
    string[],
    Partial<RunningSpec>,
    Partial<NonNullable<InstanceReport['exit']>>,
  ][] = [
    [
      'exits',
      sh('echo no config; exit 3'),
      {},
      { reason: 'exited', exitCode: 3, lastLines: ['no config'] },
    ],
    // A fault of its own: signals from inside do not reach the first process of a container.
    [
      'faults',
      ['perl', '-e', 'unpack("p", pack("L!", 1))'],
      {},
      { reason: 'signal', signal: 'SIGSEGV' },
    ],
    [
      'hungry',
      ['perl', '-e', '$x = "x" x 200_000_000; sleep 60'],
      {},
      { reason: 'oom', signal: 'SIGKILL' },
    ],
    [
      'full',
      sh('dd if=/dev/zero of=/fill bs=1M count=200 || exit 4'),
      {},
      { reason: 'disk-full', exitCode: 4 },
    ],
    ['nothing', ['/no/such'], {}, { reason: 'start-failed', exitCode: null }],
    ['noimage', ['sh'], { image: missing }, { reason: 'image-not-found' }],
    ['sick', ['sleep', '1000'], { health: stale, graceSeconds: 0 }, { reason: 'health' }],
  ];
  for (const [name, command, over] of ways) await want(id(name), command, over);
  const said: string[] = [];
  for (const [name, , , exit] of ways) {
    const report = await eventually(`the end of ${name}`, () => {
      const latest = plane.latest(id(name));
      return latest?.exit != null && ['backoff', 'failed'].includes(latest.state) && latest;
    });
    expect(report.exit, name).toMatchObject(exit);
    said.push(report.message ?? '');
  }
  expect(said).toEqual([
    'exited with code 3',
    'killed by SIGSEGV',
    expect.stringMatching(/^killed because it needed more than its 32 MiB of memory/),
    expect.stringMatching(/^ended \(exit code 4\) with its disk full: it had written its 64 MiB/),
    expect.stringContaining('/no/such'),
    expect.stringMatching(/^The registry .* has no image /),
    expect.stringMatching(/^its health check failed: sh -c .* exited with code 2: stale$/),
  ]);
  await remove(...ways.map(([name]) => id(name)));
});

test('the stop signal comes first, and SIGKILL when the grace period is over', async () => {
  const { plane, want, remove } = await platform();
  const waits = 'while :; do sleep 0.05; done';
  const usr1 = { ...image, config: { ...image.config, stopSignal: 'SIGUSR1' } };
  await want(id('listens'), sh(`trap 'echo saw TERM; exit 0' TERM; echo up; ${waits}`));
  await want(id('other'), sh(`trap 'echo saw USR1; exit 0' USR1; echo up; ${waits}`), {
    image: usr1,
  });
  await want(id('deaf'), sh(`trap '' TERM; echo up; ${waits}`), { graceSeconds: 1 });
  for (const name of ['listens', 'other', 'deaf']) {
    await eventually(`${name} to be up`, () => plane.lines(id(name)).includes('up'));
  }
  for (const [name, graceSeconds] of [
    ['listens', 60],
    ['other', 60],
    ['deaf', 1],
  ] as const) {
    await plane.want({ ...gone({ instance: id(name), generation: 2 }), graceSeconds });
  }
  // 60 s of grace are not waited for, and the deaf one does go.
  for (const name of ['listens', 'other', 'deaf']) await plane.state(id(name), 'gone');
  expect(plane.lines(id('listens'))).toContain('saw TERM');
  expect(plane.lines(id('other'))).toContain('saw USR1');
  await remove(id('listens'), id('other'), id('deaf'));
});

test('a pause stops all of it, over the next agent and a resume, and its processes live on', async () => {
  const { plane, host, want, remove } = await platform();
  const one = id('ticks');
  await want(one, sh('i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'));
  await plane.state(one, 'ready');
  const pid = (await runtime.find(one))?.pid;
  const ticks = async () => (await runtime.readLogs(one, null, 100_000)).lines.length;
  await eventually('a tick', async () => (await ticks()) > 0);

  const command = sh('i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done');
  await want(one, command, { generation: 2, paused: true });
  await plane.state(one, 'paused');
  const held = await ticks();
  await host.stopAgent();
  await host.startAgent();
  await eventually('the next agent to report it', () => plane.latest(one)?.state === 'paused');
  expect(await ticks()).toBe(held);
  expect(await runtime.find(one)).toMatchObject({ state: 'paused', pid });

  await want(one, command, { generation: 3 });
  await plane.state(one, 'ready');
  await eventually('another tick', async () => (await ticks()) > held);
  expect(await runtime.find(one)).toMatchObject({ state: 'running', pid });

  // Held still in the middle of a check it is stopped all the same.
  const health = healthCheck.parse({ ...slowCheck, timeoutSeconds: 60 });
  await want(one, command, { generation: 4, health });
  await eventually('a check', () => checksUnderWay() > 0);
  await want(one, command, { generation: 5, health, paused: true });
  await plane.state(one, 'paused');
  await remove(one);
  expect(checksUnderWay()).toBe(0);
});

const slowCheck = { kind: 'command', command: ['sleep', '3217'] };
/** Processes that `slowCheck` runs in. */
const checksUnderWay = () =>
  readdirSync('/proc').filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === 'sleep\0' + '3217\0';
    } catch {
      return false;
    }
  }).length;
