/**
 * Gives pending instances their nodes. The plan is made from a snapshot that nobody locked; what
 * makes it right is the second transaction, which locks the nodes that the plan touches, counts
 * again what each holds, and takes what still fits. Any number of replicas may do this at once.
 */
import { schedule, amountsOf, fits, resourceNames } from '@bulkhead/scheduler';
import type { Plan, PoolPolicy, Want } from '@bulkhead/scheduler';
import type { PlatformTx, Tenancy } from '@bulkhead/tenancy';
import { planDrain } from './plan-drain.ts';
import type { DrainMove } from './plan-drain.ts';
import { readNodes, readOccupants, readWants } from './read-fleet.ts';
import { countOnNodes, lockRoom } from './room.ts';

export interface PlacementOptions {
  readonly tenancy: Tenancy;
  /** Digests on a node, as it last said; only a preference. */
  readonly imagesOf: (node: string) => readonly string[];
  readonly pools: Readonly<Record<string, PoolPolicy>>;
  /** Breaks ties; replicas should differ. */
  readonly seed: () => number;
}

export interface Placed {
  /** Apps whose instances got a node or a new reason why not. */
  readonly apps: readonly string[];
  readonly placed: number;
  /** Planned, but taken by somebody else meanwhile: worth planning again at once. */
  readonly lostRaces: number;
  readonly refused: number;
}

export class Placement {
  readonly #options: PlacementOptions;

  constructor(options: PlacementOptions) {
    this.#options = options;
  }

  /** Plans and applies once, for every app. */
  async place(): Promise<Placed> {
    const { tenancy, imagesOf, pools, seed } = this.#options;
    const { waiting, nodes } = await tenancy.platform(async (tx) => {
      const wants = await readWants(tx);
      return { waiting: wants, nodes: wants.length === 0 ? [] : await readNodes(tx, imagesOf) };
    });
    if (waiting.length === 0) return { apps: [], placed: 0, lostRaces: 0, refused: 0 };
    const plan = schedule({ nodes, pools }, waiting, seed());
    const placed = await this.#apply(plan, new Map(waiting.map((want) => [want.id, want])));
    const refused = await this.#explain(plan);
    return {
      apps: [...new Set([...placed, ...refused])],
      placed: placed.length,
      lostRaces: plan.placements.length - placed.length,
      refused: plan.refusals.length,
    };
  }

  /** What draining a node would do now; changes nothing. */
  async planDrain(node: string): Promise<DrainMove[]> {
    const { tenancy, imagesOf, pools } = this.#options;
    return tenancy.platform(async (tx) =>
      planDrain(node, await readNodes(tx, imagesOf), await readOccupants(tx, node), pools),
    );
  }

  /** Answers the app of each instance that got its node. */
  async #apply(plan: Plan, wants: ReadonlyMap<string, Want>): Promise<string[]> {
    if (plan.placements.length === 0) return [];
    const nodeIds = [...new Set(plan.placements.map(({ node }) => node))];
    return this.#options.tenancy.platform(async (tx) => {
      const free = await lockRoom(tx, nodeIds, this.#options.pools, 'open');
      const limited = [...wants.values()].filter(({ mostPerNode }) => mostPerNode !== null);
      const count = await countOnNodes(tx, nodeIds, [...new Set(limited.map((w) => w.process))]);
      const taken: { id: string; node: string }[] = [];
      for (const { want: id, node } of plan.placements) {
        const left = free.get(node);
        const want = wants.get(id);
        if (!left || !want) continue;
        const needs = amountsOf(want.needs);
        const alike = `${node} ${want.process}`;
        const already = count.get(alike) ?? 0;
        if (!fits(needs, left) || already >= (want.mostPerNode ?? Infinity)) continue;
        count.set(alike, already + 1);
        for (const name of resourceNames) left[name] -= needs[name];
        taken.push({ id, node });
      }
      return assign(tx, taken);
    });
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
          SELECT i."id", r."message"
          FROM "Instance" i
          JOIN jsonb_to_recordset(${JSON.stringify(reasons)}::jsonb) AS r("id" text, "message" text)
            ON r."id" = i."id"
          WHERE i."state" = 'pending' AND i."message" IS DISTINCT FROM r."message"
          ORDER BY i."id" FOR NO KEY UPDATE OF i)
        UPDATE "Instance" i SET "message" = l."message" FROM locked l WHERE i."id" = l."id"
        RETURNING i."appId"::text AS "appId"`;
      return rows.map(({ appId }) => appId);
    });
  }
}

/** Instances that were taken back meanwhile, or placed by another replica, are left alone. */
async function assign(
  tx: PlatformTx,
  taken: readonly { id: string; node: string }[],
): Promise<string[]> {
  if (taken.length === 0) return [];
  const rows = await tx.prisma.$queryRaw<{ appId: string; key: string }[]>`
    WITH locked AS (
      SELECT i."id", t."node"
      FROM "Instance" i
      JOIN jsonb_to_recordset(${JSON.stringify(taken)}::jsonb) AS t("id" text, "node" text)
        ON t."id" = i."id"
      WHERE i."state" = 'pending' AND i."desired" = 'running' AND i."nodeId" IS NULL
      ORDER BY i."id" FOR UPDATE OF i)
    UPDATE "Instance" i
    SET "nodeId" = l."node", "state" = 'assigned', "stateAt" = now(), "message" = NULL
    FROM locked l WHERE i."id" = l."id"
    RETURNING i."appId"::text AS "appId", i."nodeId" || '.' || i."id" AS "key"`;
  if (rows.length > 0)
    await tx.outbox.add(
      'instance',
      rows.map(({ key }) => key),
    );
  return rows.map(({ appId }) => appId);
}
