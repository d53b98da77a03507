/** Pauses, crash loops and checks by command, through the agent and its NATS. */
import type { CheckResult } from '@bulkhead/runtime';
import { healthCheck } from '@bulkhead/protocol';
import { expect, test } from 'vitest';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer } from './testing.ts';

const one = 'iaaaaaaaaaaaa';

async function platform() {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.on(nats);
  return { nats, plane, host };
}

const stateOf = (host: Host) => host.runtime.containers.get(one)?.status.state;
const well: CheckResult = { outcome: 'ended', exitCode: 0, output: '' };
const command = healthCheck.parse({
  kind: 'command',
  command: ['check'],
  intervalSeconds: 1,
  failureThreshold: 2,
  startupGraceSeconds: 0,
});

test('a pause holds what runs, twice is once, and resumed it is ready again', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  const pid = host.runtime.containers.get(one)?.status.pid;

  await plane.want(await host.spec({ generation: 2, paused: true }));
  expect(await plane.state(one, 'paused')).toMatchObject({ generation: 2, restarts: 0 });
  expect(stateOf(host)).toBe('paused');
  await plane.want(await host.spec({ generation: 3, paused: true }));
  await eventually('generation 3', () => plane.latest(one)?.generation === 3);
  expect(host.runtime.calls).toMatchObject({ pause: 1, resume: 0, stop: 0, start: 1 });

  await plane.want(await host.spec({ generation: 4 }));
  await plane.state(one, 'ready');
  expect(host.runtime.containers.get(one)?.status).toMatchObject({ state: 'running', pid });
  expect(host.runtime.calls).toMatchObject({ pause: 1, resume: 1, stop: 0, start: 1 });
});

test('a paused instance is not checked, and not ready after it until a check says so', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ health: command }));
  await plane.state(one, 'ready');
  await plane.want(await host.spec({ health: command, generation: 2, paused: true }));
  await plane.state(one, 'paused');

  let answer: (result: CheckResult) => void = () => undefined;
  host.runtime.checkResult = () => new Promise<CheckResult>((resolve) => (answer = resolve));
  const checked = host.runtime.calls.check;
  await host.stopAgent();
  await host.startAgent();
  await eventually('the next agent to know it', () => stateOf(host) === 'paused');
  expect(host.runtime.calls.check).toBe(checked);

  await plane.want(await host.spec({ health: command, generation: 3 }));
  await plane.state(one, 'running');
  await eventually('a check', () => host.runtime.calls.check > checked);
  expect(plane.latest(one)?.state).toBe('running');
  answer(well);
  host.runtime.checkResult = () => well;
  await plane.state(one, 'ready');
  expect(plane.latest(one)?.restarts).toBe(0);
});

test('what ends while it is paused is started when it is resumed, not before', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await plane.want(await host.spec({ generation: 2, paused: true }));
  await plane.state(one, 'paused');

  host.runtime.exit(one, { signal: 'SIGKILL' });
  const report = await eventually('its end', () => {
    const latest = plane.latest(one);
    return latest?.exit != null && latest;
  });
  expect(report).toMatchObject({ state: 'paused', exit: { reason: 'signal', signal: 'SIGKILL' } });
  await host.stopAgent();
  await host.startAgent();
  await plane.want(await host.spec({ generation: 3 }));
  await plane.state(one, 'ready');
  expect(host.runtime.calls.start).toBe(2);
});

test('other sizes are taken on while it runs, under the release that it was started with', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  const first = await host.spec({ release: 3 });
  await plane.want(first);
  await plane.state(one, 'ready');
  const resources = { ...first.resources, memoryMiB: 512 };
  await plane.want(await host.spec({ release: 4, madeRelease: 3, resources, generation: 2 }));
  await eventually('generation 2', () => plane.latest(one)?.generation === 2);
  expect(plane.latest(one)).toMatchObject({ state: 'ready', restarts: 0 });
  expect(host.runtime.containers.get(one)?.spec).toMatchObject({
    resources: { memoryMiB: 512 },
    env: { BULKHEAD_RELEASE: 'v3' },
  });
  expect(host.runtime.calls).toMatchObject({ start: 1, update: 1, stop: 0 });
});

test('what is paused before it ever ran does not run', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ paused: true }));
  await plane.state(one, 'paused');
  expect(host.runtime.calls.start).toBe(0);
});

test('a paused instance that is to go is stopped and removed', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await plane.want(await host.spec({ generation: 2, paused: true }));
  await plane.state(one, 'paused');
  await plane.want(gone({ generation: 3 }));
  await plane.state(one, 'gone');
  expect(host.runtime.calls).toMatchObject({ stop: 1, remove: 1 });
  expect(host.runtime.containers.size).toBe(0);
});

test('crash after crash is a crash loop with the last words of each, until it runs well', async () => {
  const { plane, host } = await platform();
  host.runtime.behaviour = () => ({ lines: ['no database'], exitCode: 4 });
  await host.startAgent({ healthyAfter: 0 });
  await plane.want(await host.spec());
  const looping = await plane.state(one, 'crashloop');
  expect(looping).toMatchObject({
    restarts: 5,
    message: 'ended 5 times in a row: exited with code 4',
    exit: { reason: 'exited', exitCode: 4, lastLines: ['no database'] },
  });
  expect(plane.reports.filter((r) => r.state === 'backoff')).not.toHaveLength(0);
  const metrics = await host.agent?.metrics.text();
  expect(metrics).toContain('bulkhead_agent_instances{state="crashloop"} 1');
  // However often it crashes in it.
  expect(metrics).toContain('bulkhead_agent_crash_loops_total 1');

  // An agent that starts again knows it still.
  await host.stopAgent();
  await host.startAgent({ healthyAfter: 0, longestLoopDelay: 60_000, firstDelay: 60_000 });
  expect((await plane.state(one, 'crashloop')).restarts).toBeGreaterThanOrEqual(5);
  host.runtime.behaviour = () => ({ lines: [], exitCode: -1 });
  // Somebody asks for it again: a clean slate.
  await plane.want(await host.spec({ generation: 2 }));
  await plane.state(one, 'ready');
  host.runtime.exit(one, { exitCode: 5 });
  expect((await plane.state(one, 'backoff')).exit).toMatchObject({ exitCode: 5 });
});

test('a command that fails takes it out of service and then restarts it', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ health: command }));
  await plane.state(one, 'ready');
  host.runtime.checkResult = () => ({ outcome: 'ended', exitCode: 3, output: 'stale\n' });
  const ill = await eventually('the exit', () => plane.reports.find((r) => r.exit !== null));
  expect(ill.exit).toMatchObject({
    reason: 'health',
    message: 'its health check failed 2 times in a row: check exited with code 3: stale',
  });
  host.runtime.checkResult = () => well;
  expect((await plane.state(one, 'ready')).restarts).toBe(1);
});

test('a host that cannot run a command restarts nothing for it', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ health: { ...command, failureThreshold: 1 } }));
  await plane.state(one, 'ready');
  host.runtime.checkResult = () => ({ outcome: 'not-run', exitCode: null, output: 'crun hung' });
  const checked = host.runtime.calls.check;
  await eventually('two more checks', () => host.runtime.calls.check >= checked + 2);
  expect(plane.latest(one)).toMatchObject({ state: 'ready', restarts: 0 });
  const metrics = await host.agent?.metrics.text();
  for (const outcome of ['passed', 'not-run'])
    expect(metrics).toMatch(
      new RegExp(
        `^bulkhead_agent_checks_total\\{kind="command",outcome="${outcome}"\\} [1-9]`,
        'm',
      ),
    );
});
