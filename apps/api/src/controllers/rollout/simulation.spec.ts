import { rolling, stagesOf, unavailableOf, type RolloutStrategy } from '@bulkhead/protocol';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  carryOut,
  emptyWorld,
  live,
  processOf,
  promoteTo,
  releaseOf,
  startDeployment,
} from '../testing/rollout-world.ts';
import type { World } from '../testing/rollout-world.ts';
import type { AppSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import { isReady, isSettled, mostInAll } from './plan-process.ts';
import { planRollout } from './plan-rollout.ts';
import { processesOf, roleOf, serves, stageOf, targetsOf } from './stage.ts';
import type { Step } from './plan-rollout.ts';
import { isCurrent, isParked, wantedProcesses } from './wanted.ts';

const web = processOf('web', 8080);
const worker = processOf('worker', null);

function newIds(): () => string {
  let next = 0;
  return () => `i${String(next++).padStart(5, '0')}`;
}

const amount = fc.constantFrom('0', '1', '25%', '50%', '100%');
const pace = { maxSurge: amount, maxUnavailable: amount, progressSeconds: fc.constant(300) };
const pauseSeconds = fc.constantFrom(null, 0, 20);
const strategy: fc.Arbitrary<RolloutStrategy> = fc.oneof(
  fc.record({ kind: fc.constant('rolling' as const), ...pace }),
  fc.record({
    kind: fc.constant('canary' as const),
    ...pace,
    steps: fc.array(
      fc.record({ share: fc.constantFrom('10%', '50%', '1', '3', '100%'), pauseSeconds }),
      { minLength: 1, maxLength: 3 },
    ),
  }),
  fc.record({
    kind: fc.constant('blue-green' as const),
    ...pace,
    manual: fc.boolean(),
    keepOldSeconds: fc.constantFrom(0, 20),
  }),
);

/** Commands of people, in any order and at any moment. */
const wait = fc.record({
  do: fc.constant('wait' as const),
  rounds: fc.integer({ min: 1, max: 30 }),
});
const command = fc.oneof(
  fc.record({
    do: fc.constant('deploy' as const),
    broken: fc.nat(3).map((roll) => roll === 0),
    worker: fc.integer({ min: 0, max: 1 }),
    strategy,
  }),
  fc.record({
    do: fc.constant('scale' as const),
    web: fc.integer({ min: 0, max: 9 }),
    worker: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({ do: fc.constant('restart' as const), strategy }),
  { arbitrary: fc.record({ do: fc.constant('promote' as const) }), weight: 3 },
  fc.record({ do: fc.constant('abort' as const) }),
  fc.record({ do: fc.constant('stop' as const) }),
  fc.record({ do: fc.constant('start' as const) }),
  fc.record({ do: fc.constant('lose' as const), node: fc.constantFrom('n0', 'n1') }),
  fc.record({ do: fc.constant('drain' as const), node: fc.constantFrom('n0', 'n1') }),
  fc.record({ do: fc.constant('uncordon' as const), node: fc.constantFrom('n0', 'n1') }),
  fc.record({ do: fc.constant('pause' as const), which: fc.nat(3) }),
  fc.record({ do: fc.constant('resume' as const) }),
  fc.record({ do: fc.constant('resize' as const) }),
  fc.record({ do: fc.constant('delete' as const), which: fc.nat(3) }),
  // Between two commands things move on, mostly.
  { arbitrary: wait, weight: 8 },
);

class Story {
  readonly world: World = emptyWorld();
  readonly history = new Map<string, NonNullable<AppSnapshot['release']>>();
  readonly broken = new Set<string>();
  private version = 0;
  private readonly ids = newIds();

  constructor(edges: number) {
    this.world.edges = { known: true, applied: Array.from({ length: edges }, () => null) };
  }

  command(each: {
    do: string;
    broken?: boolean;
    web?: number;
    worker?: number;
    node?: string;
    which?: number;
    strategy?: RolloutStrategy;
  }) {
    const { world } = this;
    const trusted = this.trusted();
    const gated = stageOf(world) !== null;
    const begin = (kind: Parameters<typeof startDeployment>[1], from = trusted) => {
      world.from = from === null ? null : (this.history.get(from) ?? null);
      // It needs something to go back to that serves.
      const gates = world.state === 'active' && from !== null;
      startDeployment(world, kind, from, gates ? each.strategy : rolling);
    };
    if (each.do === 'deploy') {
      world.release = releaseOf(++this.version, each.worker === 0 ? [web] : [web, worker]);
      this.history.set(world.release.id, world.release);
      if (each.broken) this.broken.add(world.release.id);
      world.formation = { web: 2, worker: 1, ...world.formation };
      begin('deploy');
      world.state = 'active';
    } else if (each.do === 'drain' || each.do === 'uncordon') {
      if (each.do === 'drain') world.draining.add(each.node ?? '');
      else world.draining.delete(each.node ?? '');
      for (const instance of world.instances)
        if (instance.nodeId === each.node) instance.leavesNode = each.do === 'drain';
    } else if (each.do === 'pause' || each.do === 'delete') {
      const one = world.instances.filter(({ desired }) => desired === 'running')[each.which ?? 0];
      if (one) Object.assign(one, each.do === 'pause' ? { paused: true } : { desired: 'draining' });
      // As the store does it: what was to be held still and is ordered away leaves anew.
      if (one && each.do === 'delete') one.drainRevision = null;
    } else if (each.do === 'resume') {
      for (const instance of world.instances) instance.paused = false;
    } else if (world.release === null) {
      return;
    } else if (each.do === 'promote') {
      if (gated && world.deployment?.reachedAt != null)
        promoteTo(world, world.deployment, world.deployment.step + 1);
    } else if (each.do === 'abort') {
      if (world.deployment?.status !== 'running' || !world.from) return;
      const none = { process: null, instance: null, exitCode: null, lastLines: [] };
      const failure = { code: 'ABORTED' as const, message: 'aborted', ...none };
      const { id: deployment } = world.deployment;
      carryOut(world, [{ do: 'fail', deployment, failure, why: 'aborted' }], this.history);
    } else if (each.do === 'lose') {
      for (const instance of world.instances)
        if (instance.nodeId === each.node) instance.nodeLost = true;
    } else if (each.do === 'resize') {
      const { id, family, processes } = world.release;
      world.release = { ...releaseOf(++this.version, processes), family };
      this.history.set(world.release.id, world.release);
      if (this.broken.has(id)) this.broken.add(world.release.id);
      this.join(begin, 'resize', gated);
    } else {
      if (each.do === 'scale') world.formation = { web: each.web ?? 1, worker: each.worker ?? 1 };
      if (each.do === 'restart') world.epoch += 1;
      if (each.do === 'stop') {
        if (gated) world.release = world.from;
        world.state = 'stopped';
      }
      if (each.do === 'start') world.state = 'active';
      if (each.do === 'stop') begin('stop');
      else this.join(begin, each.do as 'scale', gated);
    }
  }

  /** As the store does it: what joins a deployment before a gate stands at the same one. */
  private join(
    begin: (kind: 'scale' | 'restart' | 'resize', from?: string | null) => void,
    kind: 'scale' | 'restart' | 'resize',
    gated: boolean,
  ) {
    const before = this.world.deployment;
    begin(kind, gated ? before?.fromReleaseId : undefined);
    if (!gated || !before || !this.world.deployment) return;
    const { strategy, step } = before;
    this.world.deployment = { ...this.world.deployment, strategy, step };
  }

  /** What a new deployment goes back to. */
  private trusted(): string | null {
    const { deployment: last, release } = this.world;
    if (last?.status !== 'running') {
      const failed = last?.status === 'failed' && last.fromReleaseId === null;
      return last && !failed ? release!.id : null;
    }
    const stages = stagesOf(last.strategy);
    const stage = stages[last.step];
    const promoted = stages.length > 0 && (!stage || stage.serves === 'new');
    return promoted ? last.toReleaseId : last.fromReleaseId;
  }

  /** One look of the controller, checked. */
  step(): Step[] {
    const { world } = this;
    const before = structuredClone(world);
    const steps = planRollout(world, this.ids);
    carryOut(world, steps, this.history);
    if (!steps.some((each) => each.do === 'fail')) this.check(before);
    return steps;
  }

  /** Before a switch nothing new is served, after it nothing old while there is something new. */
  private checkRoute(before: World) {
    const stage = stageOf(before);
    const [route] = this.world.routes;
    const ready = before.instances.filter(
      (each) => each.desired === 'running' && isReady(each) && !each.paused && !each.nodeLost,
    );
    const could = before.routes.flatMap(({ backends }) =>
      backends.filter(({ instance }) => ready.some(({ id }) => id === instance)),
    );
    const count = wantedProcesses(before).find(({ name }) => name === 'web')?.count ?? 0;
    const pace = before.deployment?.status === 'running' ? before.deployment.strategy : rolling;
    const held = before.instances.filter((each) => each.paused).length;
    // After a change-over what is new may have fallen ill in that very moment.
    if (stage?.serves !== 'new') {
      const owed = Math.min(count - unavailableOf(pace, count) - held, could.length);
      expect(route?.backends.length ?? 0).toBeGreaterThanOrEqual(owed);
    }
    if (!stage || !route || route === before.routes[0]) return;
    const roles = route.backends.map(({ instance }) => {
      const one = this.world.instances.find(({ id }) => id === instance);
      return one ? roleOf(before, stage, one) : 'rest';
    });
    if (stage.serves === 'old') expect(roles).not.toContain('new');
    if (stage.serves === 'new' && roles.includes('new')) expect(roles).not.toContain('stable');
    for (const { weight } of route.backends) expect(weight ?? 1).toBeGreaterThanOrEqual(1);
  }

  private check(before: World) {
    const stage = stageOf(before);
    for (const process of processesOf(before, stage)) {
      const { name, count } = process;
      const targets = targetsOf(before, stage, process);
      const running = (world: World) =>
        world.instances.filter(
          (each) => each.process === name && each.desired === 'running' && !each.nodeLost,
        );
      const moving = running(before).filter((each) => each.leavesNode).length;
      const most = targets.most + Math.min(targets.moving, moving);
      expect(running(this.world).length).toBeLessThanOrEqual(
        Math.max(running(before).length, most),
      );
      const exist = (world: World) =>
        world.instances.filter((each) => each.process === name && !each.nodeLost).length;
      expect(exist(this.world)).toBeLessThanOrEqual(Math.max(exist(before), mostInAll(count)));
      // Of what gets requests, those that can; of what does not, all.
      const works = (each: InstanceSnapshot) => name !== 'web' || serves(before, stage, each);
      const ready = (world: World) =>
        running(world).filter((each) => isReady(each) && works(each)).length;
      // What is held still at its owner's wish is there, and need not serve.
      const held = running(before).filter(
        (each) => each.paused && roleOf(before, stage, each) !== 'rest',
      ).length;
      const pace = before.deployment?.status === 'running' ? before.deployment.strategy : rolling;
      // A side whose part of a stage is smaller than what is wanted owes that part.
      const owed = Math.min(count - unavailableOf(pace, count), targets.least);
      expect(ready(this.world)).toBeGreaterThanOrEqual(Math.min(owed - held, ready(before)));
    }
    this.checkRoute(before);
    // What is out of reach of requests only: nobody in the route is ever ordered gone.
    const routed = new Set(this.world.routes.flatMap((r) => r.backends.map((b) => b.instance)));
    for (const each of this.world.instances) {
      if (each.desired !== 'running' || each.frozen) expect(routed.has(each.id)).toBe(false);
    }
    const said = this.world.deployment?.said ?? [];
    expect(new Set(said).size).toBe(said.length);
  }
}

test('whatever people and agents do: never over the surge, never fewer ready than wanted, and it settles', () => {
  fc.assert(
    fc.property(
      fc.noBias(fc.array(command, { maxLength: 24, size: 'max' })),
      fc.integer({ min: 0, max: 2 }),
      // Evenly spread: mostly nothing special happens, or hardly anything would ever become ready.
      fc.noBias(fc.array(fc.integer({ min: 0, max: 999 }), { minLength: 50, maxLength: 200 })),
      strategy,
      (commands, edges, rolls, last) => {
        let next = 0;
        const roll = () => (rolls[next++ % rolls.length] ?? 0) / 1000;
        const story = new Story(edges);
        const rounds = (count: number, chance: () => number) => {
          for (let round = 0; round < count; round++) {
            story.step();
            live(story.world, chance, story.broken);
          }
        };
        for (const each of commands) {
          if (each.do === 'wait') rounds(each.rounds, roll);
          else story.command(each);
        }
        const { world } = story;
        // From here on agents and edges move steadily; only whole rounds bring in time.
        const steady = [0.3, 0.1, 0.45];
        let turn = 0;
        const settle = () => {
          // A minute in which there is nothing to do is longer than anything that time alone brings.
          for (let round = 0, quiet = 0; round < 400 && quiet < 60; round++) {
            quiet = story.step().length === 0 ? quiet + 1 : 0;
            // What moves and cannot get on has its deadline for an end.
            const { deployment } = world;
            if (deployment?.status === 'running' && deployment.reachedAt === null) quiet = 0;
            live(world, () => steady[turn++ % steady.length] ?? 0.3, story.broken);
            world.now += 1_000;
          }
        };
        settle();
        story.command({ do: 'deploy', broken: false, worker: 1, strategy: last });
        settle();
        for (let stage = stageOf(world); stage !== null; stage = stageOf(world)) {
          // It waits for people, with exactly what it is to have.
          expect(stage.gate.kind).toBe('promotion');
          expect(world.deployment?.reachedAt).not.toBeNull();
          expect(planRollout(world, () => 'never')).toEqual([]);
          for (const process of processesOf(world, stage)) {
            const { new: fresh, stable } = targetsOf(world, stage, process);
            const left = world.instances.filter((each) => each.process === process.name);
            const roles = left.map((each) => roleOf(world, stage, each)).sort();
            // What never ran well before gives nothing to count on.
            if (story.broken.has(world.from?.id ?? '')) continue;
            expect(roles).toEqual([
              ...Array<string>(fresh).fill('new'),
              ...Array<string>(stable).fill('stable'),
            ]);
          }
          story.command({ do: 'promote' });
          settle();
        }
        expect(world.deployment?.status ?? 'none').not.toBe('running');
        expect(planRollout(world, () => 'never').map((step) => step.do)).toEqual([]);
        const runs = world.release !== null && !story.broken.has(world.release.id);
        if (!runs && !isParked(world)) return;
        for (const { name, count } of wantedProcesses(world)) {
          const left = world.instances.filter((each) => each.process === name);
          expect(left.filter((each) => isCurrent(world, each) && isSettled(each))).toHaveLength(
            count,
          );
          expect(left).toHaveLength(count);
          for (const each of left) expect(each.frozen).toBe(each.paused);
          expect(left.filter((each) => world.draining.has(each.nodeId ?? ''))).toEqual([]);
        }
      },
    ),
    { numRuns: 300 },
  );
});
