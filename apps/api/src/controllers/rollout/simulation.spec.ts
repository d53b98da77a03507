import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  carryOut,
  emptyWorld,
  live,
  processOf,
  releaseOf,
  startDeployment,
} from '../testing/rollout-world.ts';
import type { World } from '../testing/rollout-world.ts';
import type { AppSnapshot } from './app-snapshot.ts';
import { isReady, isSettled, surgeOf } from './plan-process.ts';
import { planRollout } from './plan-rollout.ts';
import type { Step } from './plan-rollout.ts';
import { isCurrent, isParked, wantedProcesses } from './wanted.ts';

const web = processOf('web', 8080);
const worker = processOf('worker', null);

function newIds(): () => string {
  let next = 0;
  return () => `i${String(next++).padStart(5, '0')}`;
}

/** Commands of people, in any order and at any moment. */
const wait = fc.record({
  do: fc.constant('wait' as const),
  rounds: fc.integer({ min: 1, max: 30 }),
});
const command = fc.oneof(
  fc.record({
    do: fc.constant('deploy' as const),
    broken: fc.boolean(),
    worker: fc.integer({ min: 0, max: 1 }),
  }),
  fc.record({
    do: fc.constant('scale' as const),
    web: fc.integer({ min: 0, max: 9 }),
    worker: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({ do: fc.constant('restart' as const) }),
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
  private good: string | null = null;
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
  }) {
    const { world } = this;
    if (world.deployment?.status === 'succeeded') this.good = world.deployment.toReleaseId;
    if (each.do === 'deploy') {
      world.release = releaseOf(++this.version, each.worker === 0 ? [web] : [web, worker]);
      this.history.set(world.release.id, world.release);
      if (each.broken) this.broken.add(world.release.id);
      world.state = 'active';
      world.formation = { web: 2, worker: 1, ...world.formation };
      startDeployment(world, 'deploy', this.good);
    } else if (each.do === 'drain' || each.do === 'uncordon') {
      if (each.do === 'drain') world.draining.add(each.node ?? '');
      else world.draining.delete(each.node ?? '');
      for (const instance of world.instances)
        if (instance.nodeId === each.node) instance.nodeDraining = each.do === 'drain';
    } else if (each.do === 'pause' || each.do === 'delete') {
      const one = world.instances.filter(({ desired }) => desired === 'running')[each.which ?? 0];
      if (one) Object.assign(one, each.do === 'pause' ? { paused: true } : { desired: 'draining' });
      // As the store does it: what was to be held still and is ordered away leaves anew.
      if (one && each.do === 'delete') one.drainRevision = null;
    } else if (each.do === 'resume') {
      for (const instance of world.instances) instance.paused = false;
    } else if (world.release === null) {
      return;
    } else if (each.do === 'lose') {
      for (const instance of world.instances)
        if (instance.nodeId === each.node) instance.nodeLost = true;
    } else if (each.do === 'resize') {
      const { id, family, processes } = world.release;
      world.release = { ...releaseOf(++this.version, processes), family };
      this.history.set(world.release.id, world.release);
      if (this.broken.has(id)) this.broken.add(world.release.id);
      startDeployment(world, 'resize', this.good);
    } else {
      if (each.do === 'scale') world.formation = { web: each.web ?? 1, worker: each.worker ?? 1 };
      if (each.do === 'restart') world.epoch += 1;
      if (each.do === 'stop') world.state = 'stopped';
      if (each.do === 'start') world.state = 'active';
      startDeployment(world, each.do as 'scale', this.good ?? world.release.id);
    }
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

  private check(before: World) {
    for (const { name, count } of wantedProcesses(before)) {
      const running = (world: World) =>
        world.instances.filter(
          (each) => each.process === name && each.desired === 'running' && !each.nodeLost,
        );
      const most = Math.max(running(before).length, count + surgeOf(count));
      expect(running(this.world).length).toBeLessThanOrEqual(most);
      const ready = (world: World) => running(world).filter(isReady).length;
      // What is held still at its owner's wish is there, and need not serve.
      const held = running(before).filter((each) => each.paused && isCurrent(before, each)).length;
      expect(ready(this.world)).toBeGreaterThanOrEqual(Math.min(count - held, ready(before)));
    }
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
      (commands, edges, rolls) => {
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
        // From here on agents and edges move steadily; only whole rounds bring in time.
        const steady = [0.3, 0.1, 0.45];
        let turn = 0;
        for (let round = 0; round < 400; round++) {
          rounds(1, () => steady[turn++ % steady.length] ?? 0.3);
          story.world.now += 1_000;
        }
        const { world } = story;
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
