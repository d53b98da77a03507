import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { Tenancy } from '@bulkhead/tenancy';
import { Placement } from '../apps/api/src/controllers/placement/place.ts';
import { addWaiting, fillFleet } from '../apps/api/src/controllers/testing/fill-fleet.ts';
import type { Bench } from './fixture.ts';
import { pgbench, startPostgres } from './fleet/postgres.ts';
import { median, time, type Result } from './measure.ts';

const placements = 1000;
const rounds = 10;
const fleet = { nodes: 200, placedPerNode: 100, placesPerNode: 1000 };

/** What a placement changes, of as many rows: an update of each, and a new row that speaks of it. */
const sameWork = `
\\set from random(1, 1000000 - ${placements})
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid > :from AND aid <= :from + ${placements};
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
  SELECT 1, 1, aid, 1, now() FROM pgbench_accounts WHERE aid > :from AND aid <= :from + ${placements};
END;
`;

/**
 * A thousand instances wait: a look at the fleet, the plan, and its transaction, durable when it is
 * done. Against pgbench on the same PostgreSQL: a thousand transactions of one row each, as a query
 * for each instance would be, and one transaction that only writes as many rows.
 */
export async function applyBench(bench: Bench): Promise<Result[]> {
  const dir = join(bench.dir, 'apply');
  await mkdir(dir, { mode: 0o711 });
  const ends: (() => Promise<unknown>)[] = [];
  const endAll = async () => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  bench.finally(endAll);
  try {
    const postgres = await startPostgres(join(dir, 'postgres'), ends);
    const tenancy = await Tenancy.connect({
      databaseUrl: postgres.url,
      configKey: { kty: 'oct', k: randomBytes(32).toString('base64url') },
    });
    ends.push(() => tenancy.close());
    const appId = await fillFleet(tenancy, fleet);
    let seed = 0;
    const placement = new Placement({ tenancy, imagesOf: () => [], seed: () => (seed += 1) });
    const ours: number[] = [];
    for (let round = 0; round <= rounds; round++) {
      await addWaiting(tenancy, appId, placements);
      const ms = await time(async () => {
        const { placed } = await placement.place();
        if (placed !== placements) throw new Error(`${placed} of ${placements} were placed`);
      });
      // The first opens connections.
      if (round > 0) ours.push(ms);
    }
    const each = await pgbench(postgres, { clients: 1, seconds: 10 }, dir);
    const many = await pgbench(postgres, { clients: 8, seconds: 10 }, dir);
    const whole = await pgbench(postgres, { clients: 1, seconds: 10, script: sameWork }, dir);
    const work = `${placements} placements, from a look at ${fleet.nodes} nodes with ${fleet.nodes * fleet.placedPerNode} instances until they are durable: ${Math.round((placements / median(ours)) * 1000)} a second`;
    const rivals = [
      ['pgbench, as many simple updates one after another', (placements / each) * 1000],
      ['pgbench, as many simple updates by 8 clients', (placements / many) * 1000],
      ['pgbench, one transaction that only writes as many rows', 1000 / whole],
    ] as const;
    return rivals.map(([rival, ms]) => ({
      ...{ bench: 'apply', work, rival, unit: 'ms', ours, theirs: [ms] },
    }));
  } finally {
    await endAll();
  }
}
