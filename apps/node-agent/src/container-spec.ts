import { createHmac } from 'node:crypto';
import { unseal, type RunningSpec, type TenantLimits } from '@bulkhead/protocol';
import type { ContainerSpec } from '@bulkhead/runtime';
import { z } from 'zod';
import { SealedEnvError } from './exits.ts';
import type { NodeIdentity } from './identity.ts';
import { waitsForSomebody } from './plan.ts';

const environment = z.record(z.string(), z.string());

/**
 * What the runtime is to make, with the app's config opened. Throws SealedEnvError. The tenant's
 * limits are the youngest known, which another instance's specification may have brought.
 */
export async function containerSpec(
  spec: RunningSpec,
  identity: NodeIdentity,
  tenantLimits: TenantLimits = spec.tenant.limits,
): Promise<ContainerSpec> {
  return {
    id: spec.instance,
    tenantId: spec.tenant.id,
    image: spec.image,
    command: spec.command,
    env: { ...platformEnv(spec), ...(await openConfig(spec, identity)) },
    resources: spec.resources,
    tenantLimits,
    readOnlyRoot: spec.readOnlyRoot,
    idle: waitsForSomebody(spec),
  };
}

function platformEnv(spec: RunningSpec): Record<string, string> {
  return {
    HOSTNAME: spec.instance,
    BULKHEAD_TENANT: spec.tenant.slug,
    BULKHEAD_APP: spec.app.name,
    BULKHEAD_PROCESS: spec.process,
    // What is changed in place keeps what it was started with.
    BULKHEAD_RELEASE: `v${spec.madeRelease ?? spec.release}`,
    BULKHEAD_INSTANCE: spec.instance,
    ...(spec.port === null ? {} : { PORT: String(spec.port) }),
  };
}

async function openConfig(
  spec: RunningSpec,
  identity: NodeIdentity,
): Promise<Record<string, string>> {
  try {
    return environment.parse(await unseal(spec.sealedEnv, identity.sealingKey, spec.instance));
  } catch {
    // The cause is dropped: a parser's message may quote the config.
    throw new SealedEnvError('its config cannot be opened on this node: deploy again');
  }
}

/**
 * The same for two containers that need not be told apart, but for limits, which change while a
 * container runs. Keyed with the node's secret, so that what is stored of it says nothing about the
 * config that went in. Begins with the version of what goes in.
 */
export function fingerprintOf(spec: ContainerSpec, identity: NodeIdentity): string {
  const { env, resources, tenantLimits: _, ...rest } = spec;
  // The size of the writable layer is given to it when it is made.
  const text = JSON.stringify([rest, resources.diskMiB, Object.entries(env).sort()]);
  return `3:${createHmac('sha256', identity.sealingKey.d).update(text).digest('hex')}`;
}

/** What can change while it runs: the same for two containers with the same limits. */
export function limitsOf({ resources, tenant }: RunningSpec): string {
  const { cpuWeight, cpuCapMillis } = tenant.limits;
  return JSON.stringify([Object.entries(resources).sort(), cpuWeight, cpuCapMillis]);
}
