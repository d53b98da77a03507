import type { AppSnapshot, DeploymentSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import { isReady } from './plan-process.ts';
import { isCurrent, wantedProcesses } from './wanted.ts';

/** A deployment of a large app is told by its totals once this much has been said. */
const mostLines = 150;

/**
 * What can be said of a running deployment now and has not been said yet, in the order in which it
 * is to be read. Sentences name what they are about, so that saying each once is enough.
 */
export function tellStory(app: AppSnapshot, deployment: DeploymentSnapshot): string[] {
  const said = new Set(deployment.said);
  const lines: string[] = [];
  if (said.size < mostLines) {
    for (const instance of app.instances) {
      if (instance.deploymentId === deployment.id) lines.push(...linesOf(instance));
    }
  }
  lines.push(...totals(app));
  return lines.filter((line, index) => !said.has(line) && lines.indexOf(line) === index);
}

function linesOf(instance: InstanceSnapshot): string[] {
  const { id, process, version, state, message } = instance;
  const lines = instance.resized
    ? [`instance ${id} of ${process} gets the sizes of v${version} in place`]
    : [`instance ${id} of ${process} is made for v${version}`];
  if (state === 'pending' && message) lines.push(`instance ${id} waits for a node: ${message}`);
  if (state === 'pulling') lines.push(`instance ${id} pulls its image`);
  if (instance.lastExit) lines.push(`instance ${id} ended: ${instance.lastExit.message}`);
  if (instance.readyAt !== null) lines.push(`instance ${id} is ready`);
  return lines;
}

function totals(app: AppSnapshot): string[] {
  return wantedProcesses(app).flatMap(({ name, count }) => {
    const ready = app.instances.filter(
      (each) =>
        each.process === name &&
        each.desired === 'running' &&
        isReady(each) &&
        isCurrent(app, each),
    ).length;
    return count > 1 && ready > 0 ? [`${name}: ${Math.min(ready, count)} of ${count} ready`] : [];
  });
}

/** The last line of a deployment that went well. */
export function successLine(app: AppSnapshot, deployment: DeploymentSnapshot): string {
  const version = app.release ? `v${app.release.version}` : 'the app';
  const processes = wantedProcesses(app).filter(({ count }) => count > 0);
  const counts = processes.map(({ name, count }) => `${count} ${name}`).join(', ');
  if (app.state !== 'active') return 'stopped: every instance is gone';
  if (counts === '') return `${version} is current; no instance is wanted, scale it up to run it`;
  switch (deployment.kind) {
    case 'scale':
      return `scaled: ${counts} ready`;
    case 'resize':
      return `v${app.release?.version ?? ''} is live, ${counts} resized`;
    case 'restart':
      return `restarted: ${counts} ready`;
    case 'start':
      return `started: ${counts} ready`;
    default:
      return `${version} is live: ${counts} ready`;
  }
}
