import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import type { ContainerSpec, ContainerStatus, RuntimeOptions } from '../runtime.ts';
import { account } from './account.ts';
import { Agent } from './agent.ts';
import { Bystander } from './bystander.ts';
import { containerSpec } from './host.ts';
import type { TestImage } from './registry.ts';

/**
 * Starts, stops, pauses, checks and removes containers at random, and kills the agent with SIGKILL
 * at random moments; after each kill the next agent reconciles and all that is on the host is
 * counted. What the seed decides is the same each time: which verbs, on whom, and when the kill
 * comes; how far the verbs have got by then is up to the machine.
 */
export interface SoakOptions {
  ms: number;
  seed: number;
  /** Of every container but the bystander. */
  containers: number;
  onRound?: (round: number, present: readonly ContainerStatus[]) => void;
}

const verbs = ['start', 'start', 'start', 'stop', 'pause', 'resume', 'check', 'remove'] as const;
const atOnce = 4;

export async function soak(
  options: RuntimeOptions,
  image: TestImage,
  { ms, seed, containers, onRound }: SoakOptions,
): Promise<number> {
  const random = mulberry32(seed);
  const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;
  const specs = Array.from({ length: containers }, () => {
    const spec = containerSpec(image, ['sh', '-c', 'echo x > /mark; exec sleep 1000']);
    return { ...spec, tenantId: `of-${spec.id}` };
  });
  let agent = new Agent(options);
  let next = new Agent(options);
  await agent.reconcile();
  await agent.call('ensureImage', image);
  const server = containerSpec(image, ['httpd', '-f', '-p', '8080', '-h', '/etc']);
  const bystander = new Bystander(await agent.start(server), 8080, '/group');
  await bystander.answers();
  const count = (present: readonly ContainerStatus[]): Promise<string[]> =>
    account(options, present, [agent.pid, next.pid], bystander.pid);
  const parts = await measure(agent, specs[0], count);

  let rounds = 0;
  for (const end = Date.now() + ms; Date.now() < end; rounds++) {
    const before = new Map((await agent.list()).map((found) => [found.id, found]));
    const touched = new Set<string>();
    let stopping = false;
    const worker = async (): Promise<void> => {
      while (!stopping) {
        const [verb, spec] = [pick(verbs), pick(specs)];
        touched.add(spec.id);
        // Refused, or cut off by the kill: what counts is what is left.
        await act(agent, verb, spec).catch(() => undefined);
      }
    };
    const workers = Array.from({ length: atOnce }, worker);
    await delay(50 + random() * 1500);
    stopping = true;
    await agent.kill();
    await Promise.all(workers);
    agent = next;
    next = new Agent(options);
    await agent.reconcile();
    const present = await agent.list();
    onRound?.(rounds, present);
    await expectSum(agent, count, parts, server.id);
    for (const [id, found] of before) {
      if (touched.has(id) || found.state !== 'running') continue;
      const pid = present.find((container) => container.id === id)?.pid;
      expect({ id, pid }).toEqual({ id, pid: found.pid });
    }
    expect(await agent.call('problems')).toEqual([]);
    bystander.expectUnharmed();
  }
  await bystander.end();
  await agent.call('destroy');
  await Promise.all([agent.kill(), next.kill()]);
  return rounds;
}

function act(agent: Agent, verb: (typeof verbs)[number], spec: ContainerSpec): Promise<unknown> {
  switch (verb) {
    case 'start':
      return agent.start(spec);
    case 'stop':
      return agent.call('stop', spec.id, 0);
    case 'check':
      return agent.call('check', spec.id, ['sh', '-c', '(setsid sleep 99 &)'], 2000);
    case 'pause':
    case 'resume':
    case 'remove':
      return agent.call(verb, spec.id);
  }
}

interface Parts {
  base: string[];
  running: string[];
  stopped: string[];
  id: string;
}

/** What there is without containers, and what one more of each kind adds. */
async function measure(
  agent: Agent,
  spec: ContainerSpec | undefined,
  count: (present: readonly ContainerStatus[]) => Promise<string[]>,
): Promise<Parts> {
  if (!spec) throw new Error('A soak needs containers.');
  const base = await count(await agent.list());
  await agent.start(spec);
  // Its command runs when it can be looked into.
  await agent.call('check', spec.id, ['true'], 5000);
  const running = less(await count(await agent.list()), base);
  await agent.call('stop', spec.id, 0);
  const stopped = less(await count(await agent.list()), base);
  await agent.call('remove', spec.id);
  return { base, running, stopped, id: spec.id };
}

const namespaces = /^(\d+) (\w+) namespaces$/;

/** `lines` without those of `others`, once each; of numbers, what is more. */
function less(lines: readonly string[], others: readonly string[]): string[] {
  const rest = [...others];
  return lines.flatMap((line) => {
    const at = rest.indexOf(line);
    if (at >= 0) rest.splice(at, 1);
    const [, total, kind] = namespaces.exec(line) ?? [];
    if (kind === undefined) return at >= 0 ? [] : [line];
    const known = others.find((other) => namespaces.exec(other)?.[2] === kind);
    return [`${Number(total) - Number.parseInt(known ?? '0')} ${kind} namespaces`];
  });
}

function sum(lists: readonly (readonly string[])[]): string[] {
  const totals = new Map<string, number>();
  const lines = lists.flat().filter((line) => {
    const [, total, kind] = namespaces.exec(line) ?? [];
    if (kind === undefined) return true;
    totals.set(kind, (totals.get(kind) ?? 0) + Number(total));
    return false;
  });
  return [...lines, ...[...totals].map(([kind, n]) => `${n} ${kind} namespaces`)].toSorted();
}

/** Soon: one that was killed in the middle of a stop may end only now that the next agent lets it go on. */
async function expectSum(
  agent: Agent,
  count: (present: readonly ContainerStatus[]) => Promise<string[]>,
  { base, running, stopped, id }: Parts,
  bystander: string,
): Promise<void> {
  let found: string[] = [];
  let wanted: string[] = [];
  const deadline = performance.now() + 5000;
  do {
    const present = await agent.list();
    const others = present.filter((container) => container.id !== bystander);
    const lines = others.map((container) =>
      (container.state === 'stopped' ? stopped : running).map((line) =>
        line.replaceAll(id, container.id),
      ),
    );
    wanted = sum([base, ...lines]);
    found = await count(present);
  } while (found.join() !== wanted.join() && performance.now() < deadline);
  expect(found).toEqual(wanted);
}

/** Random numbers from 0 to 1 that a seed decides (Tommy Ettinger's mulberry32). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
