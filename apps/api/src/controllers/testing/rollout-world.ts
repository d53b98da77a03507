/**
 * A world in memory for the planner's property tests: it carries out steps as `applyRollout` does,
 * and plays agents and edges that move at random but move on.
 */
import { assertNever, defaultResources, rolling } from '@bulkhead/protocol';
import type { ProcessDefinition, RolloutStrategy } from '@bulkhead/protocol';
import type { AppSnapshot, InstanceSnapshot } from '../rollout/app-snapshot.ts';
import type { Step } from '../rollout/plan-rollout.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
export type World = Mutable<AppSnapshot> & {
  instances: Mutable<InstanceSnapshot>[];
  /** Nodes that are drained, and get nothing new. */
  draining: Set<string>;
};

export const processOf = (name: string, port: number | null): ProcessDefinition => ({
  name,
  command: null,
  port,
  health: null,
  resources: defaultResources,
  protocol: 'http1',
  graceSeconds: 10,
  readOnlyRoot: false,
  mostPerNode: 0,
  priority: 'normal',
  pool: 'default',
  nodeLabels: {},
});

export function emptyWorld(): World {
  return {
    now: 1_000_000,
    id: 'app',
    tenantId: 'tenant',
    state: 'active',
    epoch: 0,
    name: 'hello',
    tenantSlug: 'demo',
    host: 'hello.demo.localhost',
    release: null,
    from: null,
    formation: {},
    instances: [],
    draining: new Set(),
    tasks: [],
    deployment: null,
    routes: [],
    vanished: {},
    edges: { known: true, applied: [] },
  };
}

export const releaseOf = (version: number, processes: readonly ProcessDefinition[]) => ({
  id: `r${version}`,
  family: `r${version}`,
  version,
  imageReference: `image:${version}`,
  processes: [...processes],
});

export function startDeployment(
  world: World,
  kind: 'deploy' | 'scale' | 'restart' | 'stop' | 'start' | 'resize',
  fromReleaseId: string | null,
  strategy: RolloutStrategy = rolling,
): void {
  world.deployment = {
    id: `d${world.now}`,
    kind,
    status: 'running',
    fromReleaseId,
    toReleaseId: world.release?.id ?? null,
    createdAt: world.now,
    strategy,
    step: 0,
    reachedAt: null,
    progress: -Infinity,
    progressAt: world.now,
    deadlineAt: world.now + 300_000,
    said: [],
  };
}

/** The releases that were, for going back to one. */
export type History = ReadonlyMap<string, NonNullable<AppSnapshot['release']>>;

export function carryOut(world: World, steps: readonly Step[], history: History): void {
  for (const step of steps) carryOutOne(world, step, history);
}

function carryOutOne(world: World, step: Step, history: History): void {
  const instance =
    'instance' in step ? world.instances.find(({ id }) => id === step.instance) : undefined;
  const deployment = world.deployment;
  switch (step.do) {
    case 'create':
      world.instances.push(newInstance(world, step));
      return;
    case 'drain':
      Object.assign(instance ?? {}, {
        desired: 'draining',
        drainRevision: step.revision,
        drainStartedAt: world.now,
      });
      return;
    case 'hold':
      Object.assign(instance ?? {}, {
        drainRevision: step.revision,
        drainStartedAt: world.now,
      });
      return;
    case 'freeze':
      Object.assign(instance ?? {}, { frozen: true });
      return;
    case 'thaw':
      Object.assign(instance ?? {}, { frozen: false, drainRevision: null, drainStartedAt: null });
      return;
    case 'resize':
      Object.assign(instance ?? {}, { releaseId: world.release?.id, resized: true });
      return;
    case 'remove':
      Object.assign(instance ?? {}, { desired: 'gone' });
      return;
    case 'forget':
      world.instances = world.instances.filter(({ id }) => id !== step.instance);
      return;
    case 'route': {
      const { host, state, backends, revision } = step;
      world.routes = [{ host, state, backends: [...backends], revision, deleted: false }];
      return;
    }
    case 'unroute':
    case 'finish':
      world.routes = [];
      return;
    case 'ask-edges':
      return;
    case 'tell':
      if (deployment)
        world.deployment = { ...deployment, said: [...deployment.said, step.message] };
      return;
    case 'reach':
      if (deployment) world.deployment = { ...deployment, reachedAt: world.now };
      return;
    case 'advance':
      if (deployment) promoteTo(world, deployment, step.step);
      return;
    case 'progress':
      if (deployment)
        world.deployment = {
          ...deployment,
          progress: step.progress,
          ...renewed(world, deployment),
        };
      return;
    case 'succeed':
      if (deployment) world.deployment = { ...deployment, status: 'succeeded' };
      return;
    case 'fail':
      if (!deployment) return;
      world.deployment = { ...deployment, status: 'failed' };
      // What a restart has not reached counts as restarted.
      if (deployment.fromReleaseId === deployment.toReleaseId) {
        for (const each of world.instances) {
          if (each.desired === 'running' && each.releaseId === world.release?.id)
            each.epoch = world.epoch;
        }
      }
      world.release = history.get(deployment.fromReleaseId ?? '') ?? world.release;
      return;
    default:
      assertNever(step);
  }
}

type DeploymentOf = NonNullable<AppSnapshot['deployment']>;

const renewed = (world: World, { deadlineAt, progressAt }: DeploymentOf) => ({
  progressAt: world.now,
  deadlineAt: world.now + deadlineAt - progressAt,
});

/** As the store does it, for the planner's own steps and for people. */
export function promoteTo(world: World, deployment: DeploymentOf, step: number): void {
  const moved = { step, reachedAt: null, progress: -Infinity, ...renewed(world, deployment) };
  world.deployment = { ...deployment, ...moved };
}

function newInstance(
  world: World,
  step: Extract<Step, { do: 'create' }>,
): Mutable<InstanceSnapshot> {
  const release = [world.release, world.from].find((each) => each?.id === step.release);
  return {
    id: step.instance,
    process: step.process,
    releaseId: step.release,
    family: release?.family ?? 'none',
    version: release?.version ?? 0,
    settled: true,
    resized: false,
    outgrown: false,
    deploymentId: step.deployment,
    epoch: step.epoch,
    nodeId: null,
    nodeLost: false,
    leavesNode: false,
    moveTo: null,
    desired: 'running',
    paused: false,
    frozen: false,
    state: 'pending',
    host: null,
    port: null,
    http2: false,
    restarts: 0,
    message: null,
    lastExit: null,
    drainRevision: null,
    drainStartedAt: null,
    createdAt: world.now,
    stateAt: world.now,
    readyAt: null,
  };
}

/** Whatever the agents and edges of the world may do next, each by itself. `roll` is chance, 0 to 1. */
export function live(world: World, roll: () => number, broken: ReadonlySet<string>): void {
  for (const instance of [...world.instances]) {
    if (roll() < 0.5) advance(world, instance, roll, broken.has(instance.releaseId));
  }
  const revision = world.routes[0]?.revision ?? null;
  if (revision !== null && roll() < 0.7) {
    world.edges = {
      known: true,
      applied: world.edges.applied.map((old) => (roll() < 0.8 ? revision : old)),
    };
  }
  world.now += Math.floor(roll() * 400);
}

function crash(world: World): Pick<InstanceSnapshot, 'lastExit'> {
  const exit = { reason: 'exited' as const, exitCode: 1, signal: null, message: 'exited with 1' };
  const at = new Date(world.now).toISOString();
  return { lastExit: { ...exit, lastLines: ['boom'], at } };
}

function advance(
  world: World,
  instance: Mutable<InstanceSnapshot>,
  roll: () => number,
  broken: boolean,
): void {
  const become = (state: InstanceSnapshot['state'], more: Partial<InstanceSnapshot> = {}) =>
    Object.assign(instance, { state, stateAt: world.now, ...more });
  if (instance.desired === 'gone') {
    world.instances = world.instances.filter((each) => each !== instance);
    return;
  }
  if (instance.frozen) {
    become('paused');
    return;
  }
  if (instance.nodeId === null) {
    const open = ['n0', 'n1', 'n2'].filter((node) => !world.draining.has(node));
    become('assigned', { nodeId: open[Math.floor(roll() * open.length)] ?? null });
  } else if (broken) {
    become('backoff', { ...crash(world), restarts: instance.restarts + 1 });
  } else if (instance.state === 'ready') {
    if (roll() < 0.05) become('unready');
    else if (roll() < 0.01) become('backoff', { ...crash(world), restarts: instance.restarts + 1 });
    if (roll() < 0.02) world.instances = world.instances.filter((each) => each !== instance);
  } else {
    become('ready', {
      readyAt: instance.readyAt ?? world.now,
      host: `host-of-${instance.id}`,
      port: 8080,
    });
  }
}
