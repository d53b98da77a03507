/** Placement alone, no database: packing on real traces, churn, overcommit, and large fleets. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { defaultPoolPolicy, schedule, type Want } from '@bulkhead/scheduler';
import type { Result } from './measure.ts';
import { peakOfBound, peakOfOurs, peakOfRival, story } from './placement/churn.ts';
import { busyFleet, newWants, timeBestFit } from './placement/large.ts';
import { timeMakingRoom, timeOurs, timeTwoMillion } from './placement/large.ts';
import { overcommit } from './placement/overcommit.ts';
import { heuristics, newBins, put } from './placement/rivals.ts';
import { emptyNodes, host, lowerBound, noOvercommit, openb } from './placement/traces.ts';

const lists = ['default', 'cpu250'] as const;
const bound = 'lower bound';

export async function placementBench(): Promise<Result[]> {
  // One after another: two of them take the time.
  return [...(await fill()), ...(await churn()), ...(await sell()), ...large()];
}

const row = (work: string, rival: string, unit: string, ours: number, theirs: number): Result => ({
  ...{ bench: 'placement', work, rival, unit },
  ...{ ours: [ours], theirs: [theirs] },
});

async function fill(): Promise<Result[]> {
  const results: Result[] = [];
  for (const list of lists) {
    const wants = await openb(list);
    const plan = schedule({ nodes: emptyNodes(2000), pools: noOvercommit }, wants, 1);
    const ours = new Set(plan.placements.map(({ node }) => node)).size;
    const add = (rival: string, theirs: number) =>
      results.push(row(`hosts to hold openb ${list}`, rival, 'hosts', ours, theirs));
    add(bound, lowerBound(wants));
    for (const name of Object.keys(heuristics)) add(name, hostsOfRival(name, wants));
  }
  return results;
}

function hostsOfRival(name: string, wants: readonly Want[]): number {
  const bins = newBins(host, 2000);
  for (const want of wants) put(heuristics[name]!(bins, want, host)!, want, 1);
  return bins.filter(({ instances }) => instances > 0).length;
}

async function churn(): Promise<Result[]> {
  const results: Result[] = [];
  for (const list of lists) {
    const moments = story(await openb(list), 4000, 300);
    const ours = peakOfOurs(moments, 1000);
    const work = `peak of hosts, 4,000 instances of openb ${list} that come and go`;
    results.push(row(work, bound, 'hosts', ours, peakOfBound(moments)));
    for (const name of Object.keys(heuristics))
      results.push(row(work, name, 'hosts', ours, peakOfRival(name, moments, 1000)));
  }
  return results;
}

async function sell(): Promise<Result[]> {
  const plain = await overcommit(1);
  const factors = [2, defaultPoolPolicy.cpuOvercommit, 6, 8];
  return Promise.all(
    factors.map(async (factor) => {
      const { hosts, short } = await overcommit(factor);
      const work = `hosts for PlanetLab, CPU promised ${factor} times; ${(100 * short).toFixed(2)} % of their slots are short`;
      return row(work, 'promised once', 'hosts', hosts, plain.hosts);
    }),
  );
}

function large(): Result[] {
  const wants = newWants(20_000, 5);
  const fleet = busyFleet(10_000, 100_000);
  timeOurs(fleet, wants);
  const took = timeOurs(fleet, wants);
  const perSecond = Math.round((1000 * wants.length) / took).toLocaleString('en');
  const tenth = timeOurs(busyFleet(1000, 10_000), newWants(2000, 5));
  return [
    row(
      `20,000 placements on 10,000 nodes with 100,000 instances: ${perSecond} a second`,
      'best-fit over all nodes',
      'ms',
      took,
      // A tenth of the work, ten times: all of it takes minutes.
      10 * timeBestFit(fleet, wants.slice(0, 2000)),
    ),
    row('the same', 'a tenth of it, ten times', 'ms', took, 10 * tenth),
    row(
      '500 wants that are all unlike, refused and then given the room of others on 10,000 full nodes',
      'as many that are alike',
      'ms',
      timeMakingRoom(fleet, 500, true),
      timeMakingRoom(fleet, 500, false),
    ),
    row(
      'C2M: 2,000,000 instances on 6,100 nodes, placement alone',
      "Nomad's 22 minutes as published, with real starts",
      's',
      timeTwoMillion(),
      22 * 60,
    ),
    row(
      'memory of a snapshot of 10,000 nodes with 100,000 instances',
      'the same as JSON text',
      'MiB',
      weigh(() => busyFleet(10_000, 100_000)),
      JSON.stringify(fleet).length / 2 ** 20,
    ),
  ];
}

/** MiB that what `make` gives holds. */
function weigh(make: () => unknown): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  const before = process.memoryUsage().heapUsed;
  const made = make();
  collect();
  const held = (process.memoryUsage().heapUsed - before) / 2 ** 20;
  if (made === undefined) throw new Error('nothing was made');
  return held;
}
