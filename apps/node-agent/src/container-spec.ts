import { createHmac } from 'node:crypto';
import { unseal, type RunningSpec } from '@bulkhead/protocol';
import type { ContainerSpec } from '@bulkhead/runtime';
import { z } from 'zod';
import { SealedEnvError } from './exits.ts';
import type { NodeIdentity } from './identity.ts';

const environment = z.record(z.string(), z.string());

/** What the runtime is to make, with the app's config opened. Throws SealedEnvError. */
export async function containerSpec(
  spec: RunningSpec,
  identity: NodeIdentity,
): Promise<ContainerSpec> {
  return {
    id: spec.instance,
    tenantId: spec.tenant.id,
    image: spec.image,
    command: spec.command,
    env: { ...platformEnv(spec), ...(await openConfig(spec, identity)) },
    resources: spec.resources,
  };
}

function platformEnv(spec: RunningSpec): Record<string, string> {
  return {
    HOSTNAME: spec.instance,
    BULKHEAD_TENANT: spec.tenant.slug,
    BULKHEAD_APP: spec.app.name,
    BULKHEAD_PROCESS: spec.process,
    BULKHEAD_RELEASE: `v${spec.release}`,
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
 * The same for two containers that need not be told apart. Keyed with the node's secret, so that
 * what is stored of it says nothing about the config that went in.
 */
export function fingerprintOf(spec: ContainerSpec, identity: NodeIdentity): string {
  const { env, ...rest } = spec;
  const text = JSON.stringify([rest, Object.entries(env).sort()]);
  return createHmac('sha256', identity.sealingKey.d).update(text).digest('hex');
}
