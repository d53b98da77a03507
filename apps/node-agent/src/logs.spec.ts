import { expect, test } from 'vitest';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer } from './testing.ts';

const one = 'iaaaaaaaaaaaa';

async function running(env: Record<string, string> = {}) {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.on(nats, env);
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  return { nats, plane, host };
}

test('lines reach the stream in order, with the platform saying what it did', async () => {
  const { plane, host } = await running();
  for (let i = 0; i < 1200; i += 1) host.runtime.write(one, `line ${i}`);
  await eventually('the lines', () => plane.lines(one).includes('line 1199'));
  expect(plane.lines(one)[0]).toBe('platform: starting web of v3');
  expect(await plane.storedLines()).toEqual(Array.from({ length: 1200 }, (_, i) => `line ${i}`));
});

test('a process that writes too much loses lines, is told so, and others are not touched', async () => {
  const { plane, host } = await running({
    AGENT_LOG_RATE_BYTES: '1000',
    AGENT_LOG_BURST_BYTES: '10000',
  });
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
