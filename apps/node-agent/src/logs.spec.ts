import { defaultResources, type Resources } from '@bulkhead/protocol';
import { expect, test } from 'vitest';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer } from './testing.ts';

const one = 'iaaaaaaaaaaaa';

async function running(resources: Partial<Resources> = {}) {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.on(nats);
  await host.startAgent();
  const spec = await host.spec({ resources: { ...defaultResources, ...resources } });
  await plane.want(spec);
  await plane.state(one, 'ready');
  return { nats, plane, host, spec };
}

test('lines reach the stream in order, with the platform saying what it did', async () => {
  const { plane, host } = await running();
  for (let i = 0; i < 1200; i += 1) host.runtime.write(one, `line ${i}`);
  await eventually('the lines', () => plane.lines(one).includes('line 1199'));
  expect(plane.lines(one)[0]).toBe('platform: starting web of v3');
  expect(await plane.storedLines()).toEqual(Array.from({ length: 1200 }, (_, i) => `line ${i}`));
});

test('a process that writes too much loses lines, is told so, and others are not touched', async () => {
  const { plane, host } = await running({ logBytesPerSecond: 2500 });
  const at = new Date();
  for (let i = 0; i < 2000; i += 1) host.runtime.write(one, `flood ${i} ${'x'.repeat(80)}`, at);
  await eventually('the notice', () =>
    plane.lines(one).some((l) => l.includes('lines were dropped')),
  );
  await eventually('the whole count', () => {
    const dropped = plane.batches.reduce((sum, batch) => sum + batch.dropped, 0);
    const passed = plane.lines(one).filter((l) => l.startsWith('flood')).length;
    return passed > 50 && passed < 150 && dropped + passed === 2000;
  });
  // The line says how much, and of what limit; the metrics count it.
  expect(plane.lines(one)).toContainEqual(
    expect.stringMatching(
      /^platform: \d+ lines were dropped \(\d+ KiB\): .* limit of 3 KiB a second/,
    ),
  );
  const metrics = await host.agent?.metrics.registry.metrics();
  const bytes = /^bulkhead_agent_log_dropped_bytes_total (\d+)$/m.exec(metrics ?? '')?.[1];
  expect(Number(bytes)).toBeGreaterThan(1800 * 80);
});

test('where output was overwritten before it could be sent, a line says so, and a number', async () => {
  const { plane, host } = await running();
  host.runtime.write(one, 'before');
  await eventually('the line', () => plane.lines(one).includes('before'));
  host.runtime.lostBefore = { line: 1, bytes: 8 * 1024 * 1024 };
  host.runtime.write(one, 'after');
  await eventually('the next', () => plane.lines(one).includes('after'));
  const lines = plane.lines(one);
  expect(lines.slice(lines.indexOf('before'))).toEqual([
    'before',
    'platform: about 8192 KiB of output before this were lost: more was written than is kept until it can be sent',
    'after',
  ]);
  expect(await host.agent?.metrics.text()).toContain('bulkhead_agent_log_lost_bytes_total 8388608');
});

test('another limit of its next generation holds without a restart', async () => {
  const { plane, host, spec } = await running({ logBytesPerSecond: 1024 });
  const resources = { ...spec.resources, logBytesPerSecond: 1024 * 1024 };
  await plane.want({ ...spec, generation: 2, resources });
  await eventually('the change', () =>
    plane.lines(one).includes('platform: its limits were changed'),
  );
  const at = new Date();
  for (let i = 0; i < 200; i += 1) host.runtime.write(one, `line ${i} ${'x'.repeat(80)}`, at);
  await eventually(
    'all lines',
    () => plane.lines(one).filter((l) => l.startsWith('line')).length === 200,
  );
  expect(host.runtime.calls).toMatchObject({ start: 1, stop: 0, update: 1 });
});

test('lines wait while NATS is away, in the runtime, and are neither lost nor doubled', async () => {
  const { nats, plane, host } = await running();
  host.runtime.write(one, 'before');
  await eventually('the first line', () => plane.lines(one).includes('before'));
  await nats.down();
  for (let i = 0; i < 700; i += 1) host.runtime.write(one, `away ${i}`);
  await nats.up();
  await eventually('the rest', async () => (await plane.storedLines()).includes('away 699'));
  const expected = ['before', ...Array.from({ length: 700 }, (_, i) => `away ${i}`)];
  expect(await plane.storedLines()).toEqual(expected);
});

test('an agent that starts again goes on where the last one was', async () => {
  const { plane, host } = await running();
  host.runtime.write(one, 'first');
  await eventually('the first line', () => plane.lines(one).includes('first'));
  await host.stopAgent();
  host.runtime.write(one, 'between');
  await host.startAgent();
  host.runtime.write(one, 'after');
  await eventually('the last line', () => plane.lines(one).includes('after'));
  expect(await plane.storedLines()).toEqual(['first', 'between', 'after']);
});

test('the last lines are sent before the log is removed', async () => {
  const { plane, host } = await running();
  for (let i = 0; i < 600; i += 1) host.runtime.write(one, `line ${i}`);
  host.runtime.write(one, 'the very last');
  await plane.want(gone({ generation: 2 }));
  await plane.state(one, 'gone');
  expect(host.runtime.logs.has(one)).toBe(false);
  expect(await plane.storedLines()).toHaveLength(601);
});

test('a runtime that cannot tell of output is polled', async () => {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.on(nats);
  Object.assign(host.runtime, { watchLogs: undefined });
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  host.runtime.write(one, 'hello');
  await eventually('the line', () => plane.lines(one).includes('hello'));
});

test('lines that a crash left behind before a restart of the agent are still its last lines', async () => {
  const { plane, host } = await running();
  host.runtime.write(one, 'about to fail');
  await eventually('the line', () => plane.lines(one).includes('about to fail'));
  await host.stopAgent();
  host.runtime.exit(one, { exitCode: 1 });
  await host.startAgent();
  const report = await eventually('the exit', () => plane.reports.find((r) => r.exit !== null));
  expect(report.exit?.lastLines).toEqual(['about to fail']);
});
