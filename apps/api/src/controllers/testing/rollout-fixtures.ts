/** One app at one moment, for the planner's specs. */
import { rolling } from '@bulkhead/protocol';
import type { AppSnapshot, InstanceSnapshot } from '../rollout/app-snapshot.ts';
import { planRollout, type Step } from '../rollout/plan-rollout.ts';
import { emptyWorld, processOf, releaseOf } from './rollout-world.ts';

export const web = processOf('web', 8080);

function idsFrom(prefix: string): () => string {
  let next = 0;
  return () => `${prefix}${String(next++).padStart(5, '0')}`;
}

export const instanceOf = (id: string, over: Partial<InstanceSnapshot> = {}): InstanceSnapshot => ({
  id,
  process: 'web',
  releaseId: 'r1',
  // Its own release's, unless said otherwise.
  family: over.releaseId ?? 'r1',
  version: 1,
  settled: true,
  resized: false,
  outgrown: false,
  deploymentId: null,
  epoch: 0,
  nodeId: 'n1',
  nodeLost: false,
  leavesNode: false,
  moveTo: null,
  desired: 'running',
  paused: false,
  frozen: false,
  state: 'ready',
  host: `host-of-${id}`,
  port: 8080,
  http2: false,
  restarts: 0,
  message: null,
  lastExit: null,
  drainRevision: null,
  drainStartedAt: null,
  createdAt: 0,
  stateAt: 0,
  readyAt: 0,
  ...over,
});

export const backend = (instance: string) => ({
  instance,
  host: `host-of-${instance}`,
  port: 8080,
});

/** One app with release v1 of one web process, and what is given over. */
export function appWith(over: Partial<AppSnapshot>): AppSnapshot {
  return { ...emptyWorld(), release: releaseOf(1, [web]), formation: { web: 1 }, ...over };
}
export const deploymentOf = (
  over: Partial<NonNullable<AppSnapshot['deployment']>> = {},
): NonNullable<AppSnapshot['deployment']> => ({
  id: 'd1',
  kind: 'deploy',
  status: 'running',
  fromReleaseId: null,
  toReleaseId: 'r1',
  createdAt: 0,
  strategy: rolling,
  step: 0,
  reachedAt: null,
  // More than there ever is: plans without a word of it are easier to read.
  progress: Infinity,
  progressAt: 0,
  deadlineAt: 2_000_000,
  said: [],
  ...over,
});
export const serving = (revision: number, ...ids: string[]): AppSnapshot['routes'] => [
  {
    host: 'hello.demo.localhost',
    state: 'serving',
    revision,
    backends: ids.map(backend),
    deleted: false,
  },
];

export const kinds = (steps: readonly Step[]) =>
  steps.filter((s) => s.do !== 'tell').map((s) => s.do);
export const plan = (app: AppSnapshot) => planRollout(app, idsFrom('new'));
