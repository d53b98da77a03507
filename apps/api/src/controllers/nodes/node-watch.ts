/**
 * Heartbeats into rows, and silence into states. Every replica hears every heartbeat and writes
 * what it heard every two seconds, one statement for all nodes; the age of the row is the truth
 * that all replicas share, so one that is cut off from NATS alone sees its neighbours' writes.
 */
import { heartbeat, nodeId, subjects } from '@bulkhead/protocol';
import type { Heartbeat, NodeUse } from '@bulkhead/protocol';
import { Prisma, type PlatformTx, type Tenancy } from '@bulkhead/tenancy';
import type { Msg, NatsConnection, Subscription } from 'nats';
import { planNodes } from './plan-nodes.ts';
import type { NodeStep, NodeView } from './plan-nodes.ts';

/** What was said longer ago is no news of now, milliseconds. */
const useKeptMs = 10_000;

export interface NodeWatchOptions {
  readonly tenancy: Tenancy;
  /** A steady clock, milliseconds. */
  readonly now: () => number;
  /** Called when a node is heard of that was not known to be ready: flush soon. */
  readonly onNews: () => void;
}

export interface NodeChanges {
  readonly steps: readonly NodeStep[];
  /** Apps with instances on nodes whose state changed to or from lost. */
  readonly apps: readonly string[];
}

export class NodeWatch {
  readonly #options: NodeWatchOptions;
  readonly #heard = new Map<string, Heartbeat>();
  readonly #images = new Map<string, readonly string[]>();
  readonly #use = new Map<string, { readonly at: number; readonly use: NodeUse }>();
  #listeningSince: number | null = null;
  #wholeSince: number | null = null;
  #subscription: Subscription | null = null;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
  }

  listen(nc: NatsConnection): void {
    this.connected();
    const callback = (_error: unknown, message: Msg) => this.#beat(message);
    this.#subscription = nc.subscribe(subjects.allHeartbeats, { callback });
  }

  connected(): void {
    this.#listeningSince = this.#wholeSince = this.#options.now();
  }

  disconnected(): void {
    this.#listeningSince = this.#wholeSince = null;
  }

  stop(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = null;
    this.disconnected();
  }

  /** Digests that the node said it holds. */
  imagesOf(node: string): readonly string[] {
    return this.#images.get(node) ?? [];
  }

  /** What a node said lately that it uses; null when it said nothing. */
  useOf(node: string): NodeUse | null {
    const heard = this.#use.get(node);
    return heard && this.#options.now() - heard.at < useKeptMs ? heard.use : null;
  }

  /** Writes what was heard since the last time, then judges every node. */
  async flush(): Promise<NodeChanges> {
    const heard = [...this.#heard];
    this.#heard.clear();
    const since = (at: number | null) => (at === null ? null : this.#options.now() - at);
    const hearing = {
      listeningMs: since(this.#listeningSince),
      wholeMs: since(this.#wholeSince),
    };
    return this.#options.tenancy.platform(async (tx) => {
      await writeHeartbeats(tx, heard);
      const { steps, cutOff } = planNodes(await readNodes(tx), hearing);
      if (cutOff && this.#wholeSince !== null) this.#wholeSince = this.#options.now();
      return { steps, apps: await applyNodes(tx, steps) };
    });
  }

  #beat(message: Msg): void {
    const id = message.subject.split('.')[1] ?? '';
    const parsed = heartbeat.safeParse(jsonOf(message));
    if (!parsed.success || !nodeId.safeParse(id).success) return;
    const isNews = !this.#images.has(id);
    this.#heard.set(id, parsed.data);
    this.#images.set(id, parsed.data.images);
    const { use } = parsed.data;
    if (use) this.#use.set(id, { at: this.#options.now(), use });
    if (isNews) this.#options.onNews();
  }
}

async function writeHeartbeats(
  tx: PlatformTx,
  heard: readonly (readonly [string, Heartbeat])[],
): Promise<void> {
  if (heard.length === 0) return;
  const rows = heard.map(([id, { capacity, facts, agentVersion }]) => ({
    id,
    ...capacity,
    facts,
    agentVersion,
  }));
  // Ids that nobody registered match no row. Locked in order: another replica writes the same rows.
  await tx.prisma.$executeRaw`
    WITH heard AS (
      SELECT h."id" AS "node", h.*
      FROM (SELECT * FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS h("id" text,
        "cpuMillis" int, "memoryMiB" int, "diskMiB" int, "maxInstances" int, "facts" jsonb,
        "agentVersion" text) ORDER BY "id") h
      CROSS JOIN LATERAL (
        SELECT 1 FROM "Node" n WHERE n."id" = h."id" FOR NO KEY UPDATE OF n) n)
    UPDATE "Node" n SET "lastSeenAt" = clock_timestamp(), "cpuMillis" = h."cpuMillis",
      "memoryMiB" = h."memoryMiB", "diskMiB" = h."diskMiB", "maxInstances" = h."maxInstances",
      "facts" = h."facts", "agentVersion" = h."agentVersion"
    FROM heard h WHERE n."id" = h."node"`;
}

async function readNodes(tx: PlatformTx): Promise<NodeView[]> {
  return tx.prisma.$queryRaw<NodeView[]>`
    SELECT "id", "state"::text AS "state",
      (extract(epoch FROM clock_timestamp() - "lastSeenAt") * 1000)::float8 AS "silentMs",
      (SELECT (extract(epoch FROM clock_timestamp() - t."usedAt") * 1000)::float8
       FROM "JoinToken" t WHERE t."nodeId" = n."id") AS "joinedMs"
    FROM "Node" n ORDER BY "id"`;
}

/** Answers the apps that must look again. */
async function applyNodes(tx: PlatformTx, steps: readonly NodeStep[]): Promise<string[]> {
  if (steps.length === 0) return [];
  // Locked in order, as heartbeats and placements do; a node that was removed meanwhile has no row.
  await tx.prisma.$executeRaw`
    WITH judged AS (
      SELECT n."id" AS "node", s."to"
      FROM "Node" n
      JOIN jsonb_to_recordset(${JSON.stringify(steps)}::jsonb) AS s("node" text, "to" text)
        ON s."node" = n."id"
      ORDER BY n."id" FOR NO KEY UPDATE OF n)
    UPDATE "Node" n SET "state" = j."to"::"NodeState" FROM judged j WHERE n."id" = j."node"`;
  const changed = steps.filter(({ to }) => to !== 'suspect').map(({ node }) => node);
  if (changed.length === 0) return [];
  const rows = await tx.prisma.$queryRaw<{ appId: string }[]>`
    SELECT DISTINCT "appId"::text AS "appId" FROM "Instance"
    WHERE "nodeId" IN (${Prisma.join(changed)}) AND "goneAt" IS NULL`;
  return rows.map(({ appId }) => appId);
}

function jsonOf(message: Msg): unknown {
  try {
    return message.json();
  } catch {
    return null;
  }
}
