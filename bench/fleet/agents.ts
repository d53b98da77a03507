/**
 * A thousand hosts in one process: the real agents, each with its own connection, credentials and
 * state directory, over a runtime that keeps its containers in memory and answers at once. Runs as a
 * child of the benchmark, which tells it by messages what to do.
 */
import { rmSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { Agent, readSettings } from '@bulkhead/node-agent';
import type { ContainerRuntime } from '@bulkhead/runtime';
import { FakeRuntime } from '../../apps/node-agent/src/fake-runtime.ts';
import type { NodeIdentity } from '../../apps/node-agent/src/identity.ts';

export interface Host {
  readonly id: string;
  readonly name: string;
  readonly sealingKey: NodeIdentity['sealingKey'];
  readonly creds: string;
}

export type Order =
  | {
      do: 'start';
      dir: string;
      natsUrl: string;
      hosts: readonly Host[];
      /** On each of them; all else they have in plenty. */
      maxInstances: number;
    }
  /** Their hosts are gone: nothing is said any more. */
  | { do: 'lose'; ids: readonly string[] };

const capacity = {
  AGENT_CPU_MILLIS: '64000',
  AGENT_MEMORY_MIB: '262144',
  AGENT_DISK_MIB: '2000000',
};
const agents = new Map<string, Agent>();

async function start(order: Extract<Order, { do: 'start' }>) {
  const { dir, natsUrl, hosts } = order;
  const limits = { ...capacity, AGENT_MAX_INSTANCES: String(order.maxInstances) };
  process.on('disconnect', () => rmSync(dir, { recursive: true, force: true }));
  const log = pino({ level: process.env['FLEET_AGENT_LOG'] ?? 'silent' });
  for (const { id, name, sealingKey, creds } of hosts) {
    const nodeDir = join(dir, id);
    await mkdir(nodeDir, { mode: 0o700 });
    await writeFile(join(nodeDir, 'nats.creds'), creds, { mode: 0o600 });
    const settings = readSettings({ NODE_DIR: nodeDir, NATS_URL: natsUrl, ...limits });
    const identity = { id, name, sealingKey };
    const runtime: ContainerRuntime = new FakeRuntime();
    const agent = new Agent({ settings, identity, runtime, version: 'bench', log });
    agents.set(id, agent);
    await agent.start();
  }
}

async function lose(ids: readonly string[]) {
  await Promise.all(ids.map((id) => agents.get(id)?.stop()));
  for (const id of ids) agents.delete(id);
}

process.on('message', (order: Order) => {
  const work = order.do === 'start' ? start(order) : lose(order.ids);
  work.then(
    () => process.send?.({ why: null }),
    (error: unknown) => process.send?.({ why: String(error) }),
  );
});
// The benchmark is gone, in whatever way.
process.on('disconnect', () => setImmediate(() => process.exit(0)));
