import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { defaultResources, defaultTenantLimits } from '@bulkhead/protocol';
import { identify } from './processes.ts';
import { RuntimeError } from './runtime.ts';
import type { ContainerSpec, ContainerStatus, RuntimeOptions } from './runtime.ts';
import { steps } from './steps.ts';
import type { Step } from './steps.ts';
import { account, imageFiles } from './testing/account.ts';
import { Agent, AgentKilled } from './testing/agent.ts';
import { Bystander } from './testing/bystander.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

/**
 * Every step of the list is made the last thing an agent did, and one by one each is made to fail;
 * then all that is on the host is counted. Another tenant's container serves requests all along.
 */
type Scenario =
  | 'start'
  | 'restart'
  | 'stop'
  | 'remove'
  | 'pause'
  | 'resume'
  | 'update'
  | 'check'
  | 'pull'
  | 'collect'
  | 'recover'
  | 'first';

/** Where each step is passed through. A step that is not here fails the test below, and the type check. */
const cases: Record<Step, readonly Scenario[]> = {
  'take-slot': ['start'],
  'spawn-userns': ['start'],
  'map-userns': ['start'],
  'open-userns': ['start'],
  'record-making': ['start', 'restart'],
  'limit-tenant': ['start', 'update'],
  'make-directories': ['start', 'restart'],
  'rotate-log': ['start', 'restart'],
  'make-layer': ['start'],
  'limit-layer': ['start'],
  'own-layer': ['start'],
  'write-etc': ['start'],
  'mount-scratch': ['start'],
  'mount-layers': ['start'],
  'mount-overlay': ['start'],
  'prepare-etc': ['start'],
  'write-config': ['start'],
  'spawn-conmon': ['start', 'restart'],
  'await-container': ['start', 'restart'],
  'limit-container': ['start'],
  'create-interface': ['start'],
  'limit-interface': ['start'],
  'add-route': ['start'],
  'configure-inside': ['start'],
  'record-starting': ['start', 'restart'],
  'ensure-walls': ['start'],
  'let-go': ['start', 'restart'],
  'remove-fifo': ['start', 'restart'],
  started: ['start', 'restart'],
  'move-conmon': ['start'],
  signal: ['stop'],
  kill: ['stop', 'remove'],
  'read-exit': ['stop'],
  'record-exit': ['stop', 'remove'],
  'remove-crun-state': ['stop', 'remove'],
  'await-conmon': ['stop'],
  'remove-interface': ['stop'],
  'remove-cgroup': ['stop', 'remove'],
  'remove-exit-file': ['stop'],
  'clear-layer': ['stop', 'remove'],
  'clear-bundle': ['stop'],
  'record-stopped': ['stop', 'remove'],
  'remove-tenant': ['stop', 'remove'],
  'record-removing': ['remove'],
  'delete-layer': ['remove'],
  'delete-files': ['remove'],
  'release-slot': ['remove'],
  'record-paused': ['pause', 'resume'],
  freeze: ['pause', 'resume'],
  'record-limits': ['update'],
  'relimit-container': ['update'],
  'relimit-network': ['update'],
  'ensure-entry': ['check'],
  'make-entry': ['check'],
  'spawn-entry': ['check'],
  'confine-entry': ['check'],
  'tell-entry': ['check'],
  'tidy-entry': ['check'],
  'make-pull-directory': ['pull'],
  'copy-image': ['pull'],
  'record-image': ['pull'],
  'remove-pull-directory': ['pull'],
  'remove-remains': ['recover'],
  'forget-image': ['collect'],
  'delete-image': ['collect'],
  'hold-state': ['recover'],
  'seal-crun': ['recover', 'first'],
  'make-run-directory': ['recover', 'first'],
  'favor-moves': ['recover', 'first'],
  'make-host-directories': ['recover', 'first'],
  'allocate-pool': ['first'],
  'format-pool': ['first'],
  'attach-loop': ['first'],
  'mount-pool': ['first'],
  'enable-quotas': ['first'],
  'make-conmon-cgroup': ['recover', 'first'],
  'raise-pids': ['recover', 'first'],
  'set-policy-rules': ['recover', 'first'],
  'load-rules': ['recover', 'first'],
  judge: ['recover'],
  'sweep-cgroups': ['recover'],
  'sweep-interfaces': ['recover'],
  'sweep-layers': ['recover'],
  'sweep-files': ['recover'],
  'forget-connections': ['recover', 'first'],
  reconciled: ['recover', 'first'],
};
const all = Object.values(steps).flat();
const pairs = (wanted: (scenario: Scenario) => boolean): [Step, Scenario][] =>
  all.flatMap((step) => cases[step].filter(wanted).map((name): [Step, Scenario] => [step, name]));

let registry: TestRegistry;
let options: RuntimeOptions;
let image: TestImage;
let subject: ContainerSpec;
let bystander: Bystander;
/** Reconciled, and without the subject. */
let agent: Agent;
/** Has been started ahead, because that takes longer than most cases. */
let spare: Agent;
/** What is there with the subject in each state. */
const expected = new Map<string, string[]>();

const nextAgent = (): Agent => {
  const next = spare;
  spare = new Agent(options);
  return next;
};
const count = (present: readonly ContainerStatus[]): Promise<string[]> =>
  account(options, present, [agent.pid, spare.pid], bystander.pid);
const stateOf = (present: readonly ContainerStatus[]): string =>
  present.find(({ id }) => id === subject.id)?.state ?? 'absent';

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  image = await registry.push('test/base', [baseLayer]);
  subject = containerSpec(image, ['sh', '-c', 'echo up; exec sleep 1000'], {
    tenantId: 'tenant-b',
  });
  spare = new Agent(options);
  agent = nextAgent();
  await agent.reconcile();
  await agent.call('ensureImage', image);
  const server = containerSpec(image, ['httpd', '-f', '-p', '8080', '-h', '/etc']);
  bystander = new Bystander(await agent.start(server), 8080, '/group');
  await bystander.answers();
  expected.set('absent', await count(await agent.list()));
  await agent.start(subject);
  await until(
    'it says so',
    async () =>
      ((await agent.call('readLogs', subject.id, null, 9)) as { lines: unknown[] }).lines.length >
      0,
  );
  expected.set('running', await count(await agent.list()));
  expected.set('paused', expected.get('running') ?? []);
  await agent.call('stop', subject.id, 0);
  expected.set('stopped', await count(await agent.list()));
  await agent.call('remove', subject.id);
});

afterAll(async () => {
  await bystander.end();
  await agent.call('destroy');
  await agent.kill();
  await spare.kill();
  expect(await traces(options)).toEqual([]);
  removeState(options);
  await registry.close();
});

const isOfPull = (file: string): boolean => file.startsWith('tmp/');
// One that failed must not fail those behind it.
afterEach(async () => {
  if (agent.isAlive) await agent.call('remove', subject.id).catch(() => undefined);
});

const resources = { ...defaultResources, memoryMiB: 80 };
let images = 0;
/** An image that nobody has pulled. */
const freshImage = (): Promise<TestImage> =>
  registry.push('test/pulled', [baseLayer, { 'etc/number': String(++images) }]);

/** Brings everything to where `act` is the next thing to happen. */
async function prepare(scenario: Scenario): Promise<(of: Agent) => Promise<unknown>> {
  switch (scenario) {
    case 'start':
      return (of) => of.start(subject);
    case 'restart':
      await agent.start(subject);
      await agent.call('stop', subject.id, 0);
      return (of) => of.start(subject);
    case 'stop':
      await agent.start(subject);
      return (of) => of.call('stop', subject.id, 0.1);
    case 'remove':
      await agent.start(subject);
      return (of) => of.call('remove', subject.id);
    case 'pause':
      await agent.start(subject);
      return (of) => of.call('pause', subject.id);
    case 'resume':
      await agent.start(subject);
      await agent.call('pause', subject.id);
      return (of) => of.call('resume', subject.id);
    case 'update':
      await agent.start(subject);
      return (of) => of.call('update', subject.id, resources, defaultTenantLimits);
    case 'check':
      await agent.start(subject);
      return (of) => of.call('check', subject.id, ['sh', '-c', '(setsid sleep 99 &)'], 5000);
    case 'pull': {
      const fresh = await freshImage();
      return (of) => of.call('ensureImage', fresh);
    }
    case 'recover': {
      // With something to recover from: a start that stopped half-way.
      await expect(
        agent.arm({ step: 'configure-inside', action: 'kill' }).start(subject),
      ).rejects.toThrow(AgentKilled);
      agent = nextAgent();
      return (of) => of.reconcile();
    }
    case 'collect':
    case 'first':
      throw new Error(`${scenario} has a test of its own.`);
  }
}

/** Soon: a process that was let go may not have become the container's command yet. */
async function expectCount(present: readonly ContainerStatus[], state: string): Promise<void> {
  const wanted = expected.get(state);
  let found: string[] = [];
  const deadline = performance.now() + 5000;
  do found = await count(present);
  while (found.join() !== wanted?.join() && performance.now() < deadline);
  expect(found).toEqual(wanted);
}

/** Not what became of the subject, but that it is one of what may have, with nothing more or less than it needs. */
async function expectOrder(): Promise<void> {
  const present = await agent.list();
  const state = stateOf(present);
  await expectCount(present, state);
  const layers = present.filter((container) => container.state !== 'stopped').map(({ id }) => id);
  expect((await agent.seen()).layers).toEqual(layers.toSorted());
  expect(await agent.call('problems')).toEqual([]);
  bystander.expectUnharmed();
  // And it works as if nothing had been.
  expect((await agent.start(subject)).state).toBe(state === 'paused' ? 'paused' : 'running');
  await agent.call('remove', subject.id);
  await expectCount(await agent.list(), 'absent');
}

/** What may be left of the subject. A start, stop or removal is finished or undone; anything else keeps it. */
const mayBe: Partial<Record<Scenario, readonly string[]>> = {
  start: ['absent', 'running'],
  restart: ['absent', 'stopped', 'running'],
  stop: ['running', 'stopped'],
  remove: ['running', 'stopped', 'absent'],
  pause: ['running', 'paused'],
  resume: ['running', 'paused'],
  update: ['running'],
  check: ['running'],
  pull: ['absent'],
  recover: ['absent'],
};

it('the list has a case for every step, and the code passes through each', () => {
  expect(Object.keys(cases).toSorted()).toEqual(all.toSorted());
  const sources = readdirSync(import.meta.dirname)
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.spec.ts'))
    .map((name) => readFileSync(`${import.meta.dirname}/${name}`, 'utf8'))
    .join('\n');
  const passed = [...sources.matchAll(/\bstep\('([a-z-]+)'\)/g)].map(([, name]) => name);
  expect([...new Set(passed)].toSorted()).toEqual(all.toSorted());
});

it('one container accounts for this much', () => {
  const [without = [], having = []] = [expected.get('absent'), expected.get('running')];
  const more = [...having];
  for (const line of without) if (more.includes(line)) more.splice(more.indexOf(line), 1);
  const { id, tenantId } = subject;
  const roots = new Set(more.flatMap((line) => /^cgroup (\S+?)\//.exec(line)?.[1] ?? []));
  expect(roots.size).toBeGreaterThan(0);
  expect(more.filter((line) => !line.startsWith('/')).toSorted()).toEqual(
    [
      ...[...roots].flatMap((root) => [
        `cgroup ${root}/${tenantId}/`,
        `cgroup ${root}/${tenantId}/${id}/`,
      ]),
      ...[`interface of ${id}`, `route to ${id}`, `process conmon of ${id}`, `process of ${id}`],
      // Its own mounts and those that conmon was started with; the bystander has as many.
      ...['4 mnt namespaces', '2 net namespaces', '2 user namespaces'],
    ].toSorted(),
  );
});

describe('an agent killed at', () => {
  it.each(pairs((name) => name in mayBe))('%s, in %s', async (step, scenario) => {
    // The pull before may not have been tidied up to the end.
    await until('no pull is under way', () => !imageFiles(options).some(isOfPull));
    const imagesBefore = imageFiles(options);
    const act = await prepare(scenario);
    const killed = agent;
    // What is done in the background may be killed at after the answer.
    await act(killed.arm({ step, action: 'kill' })).catch((error: unknown) => {
      if (!(error instanceof AgentKilled)) throw error;
    });
    await until(`the agent comes to ${step}`, () => !killed.isAlive);
    await killed.kill();
    agent = nextAgent();
    await agent.reconcile();
    expect(mayBe[scenario]).toContain(stateOf(await agent.list()));
    if (scenario === 'pull') {
      await until(
        'the remains of the pull are gone',
        () => imageFiles(options).join() === imagesBefore.join(),
      );
      await act(agent);
    }
    await expectOrder();
  });

  const collecting = (): RuntimeOptions => ({ ...options, imageWaterMarks: { maxBytes: 1 } });

  it.each(pairs((name) => name === 'collect'))('%s, in %s', async (step) => {
    const unused = await freshImage();
    await agent.call('ensureImage', unused);
    await agent.kill();
    const killed = new Agent(collecting());
    killed.arm({ step, action: 'kill' });
    await killed.reconcile().catch(() => undefined);
    await until(`the agent comes to ${step}`, () => !killed.isAlive);
    agent = new Agent(collecting());
    await agent.reconcile();
    await until('only what is in use is left', async () => {
      const digests = (await agent.call('listImages')) as string[];
      const { length } = imageFiles(options).filter(
        (file) => file.startsWith('storage/overlay-images/') && !file.endsWith('.json'),
      );
      return digests.length === 1 && length === 1;
    });
    await agent.call('ensureImage', unused);
    await expectOrder();
    await agent.kill();
    agent = nextAgent();
    await agent.reconcile();
  });

  it.each(pairs((name) => name === 'first'))('%s, in %s', async (step) => {
    const own = testOptions([registry.host]);
    const first = new Agent(own);
    const second = new Agent(own);
    first.arm({ step, action: 'kill' });
    await expect(first.reconcile()).rejects.toThrow(AgentKilled);
    await first.kill();
    await second.reconcile();
    expect((await second.seen()).layers).toEqual([]);
    await second.call('destroy');
    await second.kill();
    await until('nothing is left', async () => (await traces(own)).length === 0);
    removeState(own);
  });
});

describe('a failure at', () => {
  const calls: readonly Scenario[] = [
    'start',
    'restart',
    'stop',
    'remove',
    'pause',
    'resume',
    'update',
    'check',
    'pull',
  ];

  it.each(pairs((name) => calls.includes(name)))('%s, in %s', async (step, scenario) => {
    const act = await prepare(scenario);
    const error = await act(agent.arm({ step, action: 'throw' })).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    // What a tenant may come to see.
    if (error !== null && ['start', 'restart', 'pull'].includes(scenario)) {
      expect(error).toBeInstanceOf(RuntimeError);
      expect((error as RuntimeError).message).not.toContain('made to fail');
    }
    if (scenario === 'start') expect(['absent', 'running']).toContain(stateOf(await agent.list()));
    await agent.call('problems');
    // Once more and it is done.
    await act(agent);
    await expectOrder();
  });

  it.each(pairs((name) => name === 'recover'))('%s, in %s', async (step, scenario) => {
    const act = await prepare(scenario);
    await act(agent.arm({ step, action: 'throw' })).catch(() => undefined);
    await agent.call('problems');
    await agent.reconcile();
    // Where not even that helped, the next who has to do with it.
    await agent.call('remove', subject.id);
    await expectOrder();
  });
});

it('quota groups are as many as layers, and no namespace is held open that is not needed', async () => {
  expect(identify(bystander.pid)).not.toBeNull();
  await until(
    'the quota groups are gone',
    async () => (await agent.seen()).quotaGroups === 1,
    40_000,
  );
  const { open } = await agent.seen();
  // The base; the spare slots' and the bystander's, if that was restarted.
  expect(open).toMatchObject({ mnt: 1, net: 0 });
}, 60_000);
