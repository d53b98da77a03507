import type { CheckResult } from '@bulkhead/runtime';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Checks } from './checks.ts';
import { eventually } from './testing.ts';

const silent = pino({ level: 'silent' });
const well: CheckResult = { outcome: 'ended', exitCode: 0, output: '' };

/** A runtime whose commands end when they are told to. */
function held(turnMs?: number) {
  const begun: string[] = [];
  const ends = new Map<string, (result: CheckResult) => void>();
  const check = (id: string) => {
    begun.push(id);
    return new Promise<CheckResult>((resolve) => ends.set(id, resolve));
  };
  const end = (id: string) => ends.get(id)?.(well);
  return { begun, end, checks: new Checks({ check }, silent, turnMs) };
}

const ask = (checks: Checks, instance: string, tenant: string) =>
  checks.run({ instance, tenant, command: ['check'], timeoutMs: 60_000 });

test.each<[CheckResult, string | null]>([
  [
    { outcome: 'ended', exitCode: 1, output: 'one\nno \u001b[31mdatabase\n' },
    'up -q exited with code 1: no  [31mdatabase',
  ],
  [{ outcome: 'ended', exitCode: 7, output: '' }, 'up -q exited with code 7'],
  [{ outcome: 'timed-out', exitCode: null, output: '' }, 'up -q did not end within 2 s'],
  [
    { outcome: 'refused', exitCode: null, output: 'the image has no such command' },
    'up -q cannot be run: the image has no such command',
  ],
])('%j is told in words', async (result, why) => {
  const checks = new Checks({ check: () => Promise.resolve(result) }, silent);
  const asked = { instance: 'a', tenant: 't', command: ['up', '-q'], timeoutMs: 2000 };
  expect(await checks.run(asked)).toEqual({ ok: false, why });
});

test('a host that cannot run a command says nothing of the instance', async () => {
  const notRun: CheckResult = { outcome: 'not-run', exitCode: null, output: '' };
  const refuses = new Checks({ check: () => Promise.resolve(notRun) }, silent);
  const fails = new Checks({ check: () => Promise.reject(new Error('no crun')) }, silent);
  expect(await ask(refuses, 'a', 't')).toBeNull();
  expect(await ask(fails, 'a', 't')).toBeNull();
});

test('few begin at once, and one that hangs lets the next begin', async () => {
  const { begun, end, checks } = held();
  const all = Array.from({ length: 8 }, (_, i) => ask(checks, `i${i}`, 't'));
  await eventually('the first', () => begun.length > 0);
  expect(begun).toHaveLength(2);
  // None ends; the rest begin all the same.
  await eventually('the rest', () => begun.length === 8);
  for (const id of begun) end(id);
  expect(await Promise.all(all)).toEqual(all.map(() => ({ ok: true })));
});

test('what ends at once keeps its turn for a while, so that many cost little', async () => {
  const { begun, end, checks } = held(3_600_000);
  const [first, second] = Array.from({ length: 6 }, (_, i) => ask(checks, `i${i}`, 't'));
  await eventually('the first', () => begun.length > 0);
  for (const id of begun) end(id);
  // Their results are told at once; the next begin in their time.
  expect(await Promise.all([first, second])).toEqual([{ ok: true }, { ok: true }]);
  expect(begun).toEqual(['i0', 'i1']);
});

test('a tenant whose commands all hang holds up only itself', async () => {
  const { begun, end, checks } = held();
  const hanging = Array.from({ length: 20 }, (_, i) => ask(checks, `bad${i}`, 'bad'));
  await eventually('as many as it may have', () => begun.length === 16);
  const other = ask(checks, 'good', 'good');
  await eventually('the other tenant', () => begun.includes('good'));
  end('good');
  expect(await other).toEqual({ ok: true });
  expect(begun).not.toContain('bad16');
  for (let i = 0; i < 16; i += 1) end(`bad${i}`);
  await eventually('the rest of its own', () => begun.includes('bad19'));
  for (const id of begun) end(id);
  await Promise.all(hanging);
});
