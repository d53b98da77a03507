/** Starts services one after another, each as a step that ends when it does its work. */
import { join } from 'node:path';
import { StepFailure, lastLines, type createSteps } from './bootstrap/steps.mjs';
import { findListener } from './ports.ts';
import { apiReplicas, edgeReplicas } from './replicas.ts';
import type { Layout, PlatformSettings } from './settings.ts';
import {
  ensureRunning,
  ensureService,
  ensureSupervisor,
  isRunning,
  type Service,
} from './supervise.ts';

export type Steps = ReturnType<typeof createSteps>;

/** Starts services in their order; each does its work before the next starts. */
export async function startServices(
  { step }: Steps,
  settings: PlatformSettings,
  paths: Layout,
  services: readonly Service[],
): Promise<void> {
  const restart = new Set<string>();
  await step(`Preparing ${services.map(({ name }) => name).join(', ')}`, async () => {
    for (const service of services)
      if (!(await isRunning(paths, service.name)))
        await assertPortsFree(settings, paths, service.name);
    for (const service of services)
      if (await ensureService(paths, service, settings.root)) restart.add(service.name);
    await ensureSupervisor(paths);
  });
  for (const service of services)
    await step(`Starting ${service.name}`, async (s) => {
      try {
        await ensureRunning(paths, service, restart.has(service.name));
      } catch (error) {
        const log = join(paths.log, service.name, 'current');
        s.log(lastLines(log, 15).join('\n'));
        throw new StepFailure(
          error instanceof Error ? error.message : String(error),
          `read ${log}, mend what it names, and run the same command again.`,
        );
      }
    });
}

async function assertPortsFree(
  settings: PlatformSettings,
  paths: Layout,
  service: string,
): Promise<void> {
  const { ports, host, listen } = settings;
  const edges = edgeReplicas(settings, paths);
  const here = (...numbers: number[]) => numbers.map((port) => [host, port] as const);
  const everywhere = (port: number) => [listen ?? host, port] as const;
  const wanted: Record<string, (readonly [host: string, port: number])[]> = {
    postgres: here(ports.postgres),
    nats: here(ports.nats),
    registry: here(ports.registry),
    balancer: [...here(ports.api), ...(listen === null ? [] : [everywhere(ports.streams)])],
    agent: here(ports.agentMetrics),
    ...Object.fromEntries(
      apiReplicas(settings).map(({ name, port, streams }) => [
        name,
        [...here(port), everywhere(streams)],
      ]),
    ),
    ...Object.fromEntries(edges.map(({ haproxy, port }) => [haproxy, here(port)])),
    ...Object.fromEntries(edges.map(({ controller, metrics }) => [controller, here(metrics)])),
  };
  for (const [at, port] of wanted[service] ?? []) {
    const listener = await findListener(at, port);
    if (listener !== null)
      throw new StepFailure(
        `port ${port}, which ${service} needs, is in use by ${listener.pid === null ? '' : `process ${listener.pid}: `}${listener.program}`,
        'stop that process, or choose other ports: BULKHEAD_PORT_BASE=15000 npm run up uses 15000 to 15029.',
      );
  }
}
