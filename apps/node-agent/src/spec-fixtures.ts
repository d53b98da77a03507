import {
  defaultResources,
  defaultTenantLimits,
  type InstanceSpec,
  type RunningSpec,
} from '@bulkhead/protocol';

/** Specifications for specs. */
export const tenantId = '11111111-1111-4111-8111-111111111111';
export const appId = '22222222-2222-4222-8222-222222222222';

export function running(over: Partial<RunningSpec> = {}): RunningSpec {
  return {
    v: 1,
    desired: 'running',
    instance: 'iaaaaaaaaaaaa',
    generation: 1,
    tenant: { id: tenantId, slug: 'demo', limits: defaultTenantLimits },
    app: { id: appId, name: 'hello' },
    process: 'web',
    release: 3,
    madeRelease: null,
    image: {
      repository: '127.0.0.1:5000/demo/hello',
      digest: `sha256:${'a'.repeat(64)}`,
      config: {
        entrypoint: [],
        cmd: ['/bin/hello'],
        env: [],
        workingDir: '/',
        user: '',
        exposedPorts: [],
        stopSignal: null,
      },
    },
    command: null,
    port: 8080,
    health: null,
    resources: defaultResources,
    graceSeconds: 10,
    readOnlyRoot: false,
    paused: false,
    task: null,
    sealedEnv: '',
    ...over,
  };
}

export function gone(over: { instance?: string; generation?: number } = {}): InstanceSpec {
  const base = { v: 1, desired: 'gone', instance: 'iaaaaaaaaaaaa', generation: 1 } as const;
  return { ...base, graceSeconds: 10, ...over };
}
