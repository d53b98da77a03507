/**
 * Gives pending instances their nodes. The plan is made from a snapshot that nobody locked; what
 * makes it right is the second transaction, which locks the nodes that the plan touches, counts
 * again what each holds, and takes what still fits. Any number of replicas may do this at once.
 */
import { amountsOf, fits, preempt, resourceNames, schedule } from '@bulkhead/scheduler';
import type { Amounts, Plan, Snapshot, Want } from '@bulkhead/scheduler';
import type { PlatformTx, Tenancy } from '@bulkhead/tenancy';
import { readOccupants, takeClaims } from './claims.ts';
import { planDrain } from './plan-drain.ts';
import type { DrainMove } from './plan-drain.ts';
import { appsOf, readFleet, readResidents, readWants, type Cursor } from './read-fleet.ts';
import { countOnNodes, lockRoom } from './room.ts';

export interface PlacementOptions {
  readonly tenancy: Tenancy;
  /** Digests on a node, as it last said; only a preference. */
  readonly imagesOf: (node: string) => readonly string[];
  /** Breaks ties; replicas should differ. */
  readonly seed: () => number;
  /** Most instances of one plan; 20,000 when absent. */
  readonly batch?: number;
}

const defaultBatch = 20_000;

export interface Placed {
  /** Apps whose instances got a node or a new reason why not. */
  readonly apps: readonly string[];
  readonly placed: number;
  /** Planned, but taken by somebody else meanwhile: worth planning again at once. */
  readonly lostRaces: number;
  readonly refused: number;
  /** Others wait that were not looked at yet: plan again at once. */
  readonly more: boolean;
}

export class Placement {
  readonly #options: PlacementOptions;
  #next: Cursor | null = null;

  constructor(options: PlacementOptions) {
    this.#options = options;
  }

  /** Plans and applies once, for every app. */
  async place(): Promise<Placed> {
    const { tenancy, imagesOf, seed } = this.#options;
    const { wants, next, fleet } = await tenancy.platform(async (tx) => {
      const waiting = await readWants(tx, this.#next, this.#options.batch ?? defaultBatch);
      const { wants } = waiting;
      const fleet = wants.length > 0 ? await readFleet(tx, imagesOf, appsOf(wants)) : null;
      return { ...waiting, fleet };
    });
    this.#next = next;
    const more = next !== null;
    if (!fleet) return { apps: [], placed: 0, lostRaces: 0, refused: 0, more };
    const byId = new Map(wants.map((want) => [want.id, want]));
    const plan = schedule(fleet, wants, seed());
    const placed = await this.#apply(plan, byId);
    const claimed = await this.#preempt(fleet, byId, plan);
    const refused = await this.#explain(plan);
    return {
      more,
      apps: [...new Set([...placed, ...claimed, ...refused])],
      placed: placed.length,
      lostRaces: plan.placements.length - placed.length,
      refused: plan.refusals.length,
    };
  }

  /** What draining a node would do now; changes nothing. */
  async planDrain(node: string): Promise<DrainMove[]> {
    const { tenancy, imagesOf } = this.#options;
    return tenancy.platform(async (tx) => {
      const residents = await readResidents(tx, node);
      return planDrain(node, await readFleet(tx, imagesOf, appsOf(residents)), residents);
    });
  }

  /** Answers the app of each instance that got its node. */
  async #apply(plan: Plan, wants: ReadonlyMap<string, Want>): Promise<string[]> {
    if (plan.placements.length === 0) return [];
    const nodeIds = [...new Set(plan.placements.map(({ node }) => node))];
    return this.#options.tenancy.platform(async (tx) => {
      const rooms = await lockRoom(tx, nodeIds, 'open');
      const limited = [...wants.values()].filter(({ mostPerNode }) => mostPerNode !== null);
      const count = await countOnNodes(tx, nodeIds, [...new Set(limited.map((w) => w.process))]);
      const taken: { id: string; node: string }[] = [];
      for (const { want: id, node } of plan.placements) {
        const room = rooms.get(node);
        const want = wants.get(id);
        if (!room || !want) continue;
        const needs = amountsOf(want.needs);
        const alike = `${node} ${want.process}`;
        const already = count.get(alike) ?? 0;
        const hasClaim = want.claim === node;
        const left = hasClaim ? sumOf(room.free, room.kept) : room.free;
        if (!fits(needs, left) || already >= (want.mostPerNode ?? Infinity)) continue;
        count.set(alike, already + 1);
        // What was kept for it was counted as taken before; a claim that ran out since keeps nothing.
        for (const name of resourceNames) {
          const own = hasClaim ? Math.min(needs[name], Math.max(0, room.kept[name])) : 0;
          room.kept[name] -= own;
          room.free[name] -= needs[name] - own;
        }
        taken.push({ id, node });
      }
      return assign(tx, taken);
    });
  }

  /** Makes room for what was refused at the expense of lower priorities; answers the apps concerned. */
  async #preempt(fleet: Snapshot, wants: ReadonlyMap<string, Want>, plan: Plan): Promise<string[]> {
    const above = Math.max(
      0,
      ...plan.refusals.map(({ want: id, rule }) => {
        const want = wants.get(id);
        return rule === 'capacity' && want?.claim === null ? want.priority : 0;
      }),
    );
    if (above === 0) return [];
    const { tenancy, seed } = this.#options;
    const occupants = await tenancy.platform((tx) => readOccupants(tx, above));
    const claims = preempt(fleet, [...wants.values()], plan, occupants, seed());
    if (claims.length === 0) return [];
    return tenancy.platform((tx) => takeClaims(tx, claims, wants));
  }

  /** Writes why an instance has no node beside it, when that is news. */
  async #explain(plan: Plan): Promise<string[]> {
    if (plan.refusals.length === 0) return [];
    const reasons = plan.refusals.map(({ want, message }) => ({
      id: want,
      message: `no room: ${message}`,
    }));
    return this.#options.tenancy.platform(async (tx) => {
      const rows = await tx.prisma.$queryRaw<{ appId: string }[]>`
        WITH locked AS (
          SELECT r.*
          FROM (SELECT * FROM jsonb_to_recordset(${JSON.stringify(reasons)}::jsonb)
            AS r("id" text, "message" text) ORDER BY "id") r
          CROSS JOIN LATERAL (
            SELECT 1 FROM "Instance" i WHERE i."id" = r."id" AND i."state" = 'pending'
              AND i."message" IS DISTINCT FROM r."message"
            FOR NO KEY UPDATE OF i) i)
        UPDATE "Instance" i SET "message" = l."message" FROM locked l WHERE i."id" = l."id"
        RETURNING i."appId"::text AS "appId"`;
      return rows.map(({ appId }) => appId);
    });
  }
}

const sumOf = (a: Amounts, b: Amounts): Amounts => ({
  cpuMillis: a.cpuMillis + b.cpuMillis,
  memoryMiB: a.memoryMiB + b.memoryMiB,
  diskMiB: a.diskMiB + b.diskMiB,
  instances: a.instances + b.instances,
});

/**
 * Instances that were taken back meanwhile, or placed by another replica, are left alone. Each is
 * found by its key, as in `applyReports`.
 */
async function assign(
  tx: PlatformTx,
  taken: readonly { id: string; node: string }[],
): Promise<string[]> {
  if (taken.length === 0) return [];
  const rows = await tx.prisma.$queryRaw<{ appId: string; key: string }[]>`
    WITH locked AS (
      SELECT t.*
      FROM (SELECT * FROM jsonb_to_recordset(${JSON.stringify(taken)}::jsonb)
        AS t("id" text, "node" text) ORDER BY "id") t
      CROSS JOIN LATERAL (
        SELECT 1 FROM "Instance" i WHERE i."id" = t."id" AND i."state" = 'pending'
          AND i."desired" = 'running' AND i."nodeId" IS NULL
        FOR UPDATE OF i) i)
    UPDATE "Instance" i
    SET "nodeId" = l."node", "state" = 'assigned', "stateAt" = now(), "message" = NULL,
      "claimNodeId" = NULL, "claimedAt" = NULL
    FROM locked l WHERE i."id" = l."id"
    RETURNING i."appId"::text AS "appId", i."nodeId" || '.' || i."id" AS "key"`;
  if (rows.length > 0)
    await tx.outbox.add(
      'instance',
      rows.map(({ key }) => key),
    );
  return rows.map(({ appId }) => appId);
}
