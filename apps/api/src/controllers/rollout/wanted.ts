import type { ProcessDefinition } from '@bulkhead/protocol';
import type { AppSnapshot, DeploymentSnapshot, InstanceSnapshot } from './app-snapshot.ts';

/** The process whose instances the edge serves. */
export const routedProcess = 'web';

export function runningDeployment(app: AppSnapshot): DeploymentSnapshot | null {
  return app.deployment?.status === 'running' ? app.deployment : null;
}

/**
 * A first release that failed is parked: there is nothing to go back to, and to start it over and
 * over would cost its tenant and its neighbours. The next deployment of any kind tries again.
 */
export function isParked(app: AppSnapshot): boolean {
  const last = app.deployment;
  return (
    last !== null &&
    last.status === 'failed' &&
    last.fromReleaseId === null &&
    (last.kind === 'deploy' || last.kind === 'config' || last.kind === 'rollback')
  );
}

export interface WantedProcess {
  readonly name: string;
  readonly count: number;
  /** Null for a process that the current release has not. */
  readonly definition: ProcessDefinition | null;
}

/** Every process that the release has or an instance still belongs to, and how many are wanted. */
export function wantedProcesses(app: AppSnapshot): WantedProcess[] {
  const definitions = app.release?.processes ?? [];
  const runs = app.state === 'active' && !isParked(app);
  const wanted: WantedProcess[] = definitions.map((definition) => ({
    name: definition.name,
    count: runs ? (app.formation[definition.name] ?? 0) : 0,
    definition,
  }));
  const names = new Set(wanted.map(({ name }) => name));
  for (const { process } of app.instances) {
    if (names.has(process)) continue;
    names.add(process);
    wanted.push({ name: process, count: 0, definition: null });
  }
  return wanted;
}

/** Whether it runs what should run now; a restart raises the app's epoch and so ages all. */
export function isCurrent(app: AppSnapshot, instance: InstanceSnapshot): boolean {
  return instance.releaseId === app.release?.id && instance.epoch === app.epoch;
}

/** Whether it becomes current by other sizes alone, where it is. */
export function isResizable(app: AppSnapshot, instance: InstanceSnapshot): boolean {
  return (
    app.state === 'active' &&
    !isParked(app) &&
    !isCurrent(app, instance) &&
    instance.family === app.release?.family &&
    instance.epoch === app.epoch &&
    instance.desired === 'running' &&
    instance.nodeId !== null &&
    !instance.nodeLost &&
    !instance.leavesNode &&
    !instance.outgrown
  );
}

/** Whether it does not run, and not because somebody asked for that. */
export function isDown({ state }: InstanceSnapshot): boolean {
  return state === 'backoff' || state === 'crashloop' || state === 'failed';
}
