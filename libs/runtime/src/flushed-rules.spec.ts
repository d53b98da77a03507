import { createServer, type AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run } from './exec.ts';
import { policyRules } from './firewall.ts';
import type { ContainerStatus, RuntimeOptions } from './runtime.ts';
import { Agent } from './testing/agent.ts';
import { containerSpec, removeState, testOptions, until } from './testing/host.ts';
import { baseLayer, startRegistry, type TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let agent: Agent;
let container: ContainerStatus;
const onHost = createServer((socket) => socket.end('host\n'));

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  const image = await registry.push('test/base', [baseLayer]);
  agent = new Agent(options);
  await agent.reconcile();
  await agent.call('ensureImage', image);
  const spec = containerSpec(image, ['sleep', '1000']);
  container = (await agent.call('start', spec)) as ContainerStatus;
  await new Promise<void>((resolve) => onHost.listen(0, '0.0.0.0', resolve));
});

afterAll(async () => {
  onHost.close();
  await agent.call('destroy');
  await agent.kill();
  removeState(options);
  await registry.close();
});

/** What a process in the container's network gets from the host, by the address that every host has for its containers. */
const askHost = async (): Promise<string> => {
  const { port } = onHost.address() as AddressInfo;
  const script = `nc -w 1 169.254.1.1 ${port} < /dev/null || echo refused`;
  const inside = ['-t', String(container.pid), '-n', 'busybox', 'sh', '-c', script];
  return (await run('nsenter', inside)).stdout.trim();
};
/** Whether ours stands before the kernel's rule for the host's own addresses, which is there. */
const isFirst = async (): Promise<boolean> => {
  const rules = (await run('ip', ['rule', 'list', 'pref', '0'])).stdout.trim().split('\n');
  const ours = rules.findIndex((rule) => rule.includes(options.network));
  return ours >= 0 && ours < rules.findIndex((rule) => rule.includes('lookup local'));
};

it('while the table is gone and nobody puts it back, the host is closed, by one rule alone', async () => {
  expect(await isFirst()).toBe(true);
  expect(await askHost()).toBe('refused');
  await agent.kill();
  await run('nft', ['delete', 'table', 'inet', options.nftTable]);
  expect(await askHost()).toBe('refused');

  const [rule = []] = policyRules(options.network);
  await run('ip', ['rule', 'delete', ...rule]);
  expect(await askHost()).toBe('host');

  agent = new Agent(options);
  await agent.reconcile();
  expect(await isFirst()).toBe(true);
  expect(await askHost()).toBe('refused');
});

it('in the wrong order they are put right', async () => {
  const [rule = []] = policyRules(options.network);
  await run('ip', ['rule', 'delete', ...rule]);
  await run('ip', ['rule', 'add', ...rule]);
  await until('ours is first again', isFirst);
});
