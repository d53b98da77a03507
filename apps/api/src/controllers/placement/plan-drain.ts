import { schedule } from '@bulkhead/scheduler';
import type { Snapshot, Want } from '@bulkhead/scheduler';

/** An instance on a node that is to be drained. */
export interface Resident extends Want {
  readonly tenant: string;
  readonly app: string;
  readonly processName: string;
  /** It runs once and is not moved. */
  readonly oneOff: boolean;
}

/** Where an instance would go. */
export interface DrainMove {
  readonly instance: string;
  readonly tenant: string;
  readonly app: string;
  readonly process: string;
  /** Id of the node that has room for it; null: it stays, see `why`. */
  readonly to: string | null;
  readonly why: string | null;
}

/**
 * What draining `node` would do, if nothing else happened meanwhile: the placement of new copies of
 * all that is on it, elsewhere.
 */
export function planDrain(
  node: string,
  { nodes, pools }: Snapshot,
  residents: readonly Resident[],
): DrainMove[] {
  const elsewhere = nodes.map((each) => (each.id === node ? { ...each, cordoned: true } : each));
  const movable = residents.filter(({ oneOff }) => !oneOff);
  const plan = schedule({ nodes: elsewhere, pools }, movable, 0);
  const placed = new Map(plan.placements.map(({ want, node: to }) => [want, to]));
  const refused = new Map(plan.refusals.map(({ want, message }) => [want, message]));
  return residents.map(({ id, tenant, app, processName, oneOff }) => ({
    ...{ instance: id, tenant, app, process: processName, to: placed.get(id) ?? null },
    why: oneOff
      ? 'a one-off task is not moved; the drain waits until it has ended'
      : (refused.get(id) ?? null),
  }));
}
