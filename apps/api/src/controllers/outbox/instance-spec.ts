import {
  defaultTenantLimits,
  imageConfig,
  processDefinition,
  seal,
  taskDefinition,
} from '@bulkhead/protocol';
import type { InstanceSpec, TenantLimits } from '@bulkhead/protocol';
import { quotaResources, type Prisma, type PlatformTx } from '@bulkhead/tenancy';
import type { JWK } from 'jose';
import { z } from 'zod';

/** What a specification is made of. */
export const specRow = {
  release: true,
  node: { select: { sealingKey: true } },
  app: {
    select: {
      id: true,
      name: true,
      tenant: {
        select: {
          id: true,
          slug: true,
          limits: {
            where: { resource: { in: ['cpuMillis', 'instances'] } },
            select: { resource: true, limit: true },
          },
        },
      },
    },
  },
} satisfies Prisma.InstanceInclude;
export type SpecRow = Prisma.InstanceGetPayload<{ include: typeof specRow }>;

const processes = z.array(processDefinition);
/** For an instance whose release cannot tell any more. */
const defaultGraceSeconds = 10;

/**
 * The whole specification of an instance for its node, from a row read at `readAt`. Config travels sealed to the node's key and
 * to this instance; NATS and whoever reads it learn only names that the tenant chose in public.
 */
export async function instanceSpecOf(
  row: SpecRow,
  config: (release: SpecRow['release']) => Promise<Record<string, string>>,
  readAt: Date,
): Promise<InstanceSpec> {
  const task = row.oneOff ? taskDefinition.parse(row.task) : null;
  const definition = task
    ? { ...task, port: null, health: null }
    : processes.parse(row.release.processes).find(({ name }) => name === row.process);
  const graceSeconds = definition?.graceSeconds ?? defaultGraceSeconds;
  const { id: instance, generation } = row;
  if (row.desired === 'gone') return { v: 1, desired: 'gone', instance, generation, graceSeconds };
  if (!definition || !row.node) {
    throw new Error(
      `instance ${instance} has no process ${row.process} in its release, or no node`,
    );
  }
  const {
    tenant: { limits, ...tenant },
    ...app
  } = row.app;
  const sealedEnv = await seal(await config(row.release), row.node.sealingKey as JWK, instance);
  return {
    v: 1,
    desired: 'running',
    instance,
    generation,
    tenant: { ...tenant, limits: tenantLimitsOf(limits, readAt) },
    app,
    process: row.process,
    release: row.release.version,
    madeRelease: row.madeVersion,
    image: {
      repository: row.release.imageRepository,
      digest: row.release.imageDigest,
      config: imageConfig.parse(row.release.imageConfig),
    },
    command: definition.command,
    port: definition.port,
    health: definition.health,
    resources: definition.resources,
    graceSeconds,
    readOnlyRoot: definition.readOnlyRoot,
    paused: row.frozen,
    task: task && { terminal: task.terminal, stdin: task.stdin },
    sealedEnv,
  };
}

/**
 * On each node a tenant gets no more CPU than its quota is in all, though its instances may burst
 * beyond what they reserve, and so many processes for each instance of its quota: the kernel has
 * ids for all tenants together. Everybody's weight is the same: there is one plan.
 */
function tenantLimitsOf(
  overrides: readonly { resource: string; limit: bigint }[],
  readAt: Date,
): TenantLimits {
  const quotaOf = (resource: 'cpuMillis' | 'instances') =>
    Number(
      overrides.find((each) => each.resource === resource)?.limit ?? quotaResources[resource].limit,
    );
  // A quota of nothing stops what is new, and what runs already goes on slowly.
  const cpuCapMillis = Math.max(leastCapMillis, quotaOf('cpuMillis'));
  const pids = Math.min(mostPids, Math.max(1, quotaOf('instances')) * pidsPerInstance);
  return { ...defaultTenantLimits, cpuCapMillis, pids, asOf: readAt.getTime() };
}
const leastCapMillis = 100;
/** Twice what an instance may have that asks for nothing else. */
const pidsPerInstance = 512;
/** Of all that Linux can number. */
const mostPids = 1_000_000;

/** Opens each release's config once, however many instances of it are published together. */
export function configOnce(tx: PlatformTx) {
  const opened = new Map<string, Promise<Record<string, string>>>();
  return (release: SpecRow['release']): Promise<Record<string, string>> => {
    const known = opened.get(release.id);
    if (known) return known;
    const opening = tx.releases.openConfig(release);
    opened.set(release.id, opening);
    return opening;
  };
}
