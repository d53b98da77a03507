/** What is counted, its unit and the platform's default limit. */
export const quotaResources = {
  apps: { unit: 'apps', limit: 20 },
  instances: { unit: 'instances', limit: 20 },
  cpuMillis: { unit: 'mCPU', limit: 4000 },
  memoryMiB: { unit: 'MiB', limit: 4096 },
  diskMiB: { unit: 'MiB', limit: 20_480 },
  /** Instances of the priority `high`, which take the room of others; an operator grants them. */
  highPriority: { unit: 'instances', limit: 0 },
  tokens: { unit: 'tokens', limit: 20 },
} as const;
export type QuotaResource = keyof typeof quotaResources;

export interface QuotaUsageView {
  readonly resource: QuotaResource;
  readonly used: number;
  readonly limit: number;
  readonly unit: string;
}
