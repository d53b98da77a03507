import {
  conflict,
  defaultPool,
  dnsLabel,
  invalid,
  notFound,
  type NodeFacts,
  labelName,
  labelValue,
  mostLabels,
} from '@bulkhead/protocol';
import type { JWK } from 'jose';
import { z } from 'zod';
import type { AuditWriter } from '../audit/audit.ts';
import type { Db } from '../db/context.ts';
import { makeShortId } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import type { Node, Prisma } from '../generated/client.ts';
import type { InstanceState, NodeState } from '../generated/enums.ts';
import { PlatformQuota } from '../quota/quota.ts';
import { hashSecret } from '../tokens/secret.ts';

export interface CapacityView {
  readonly cpuMillis: number;
  readonly memoryMiB: number;
  readonly diskMiB: number;
  readonly instances: number;
}

export interface NodeView {
  readonly id: string;
  readonly name: string;
  readonly pool: string;
  readonly state: NodeState;
  readonly cordoned: boolean;
  readonly draining: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly agentVersion: string | null;
  /** IPv4 address by which other hosts reach it; null: it is the only host. */
  readonly address: string | null;
  /** Of its containers, as IPv4 CIDR; null: unknown to other hosts. */
  readonly network: string | null;
  readonly certificateEndsAt: Date | null;
  readonly lastSeenAt: Date | null;
  readonly createdAt: Date;
  /** Empty until the agent's first heartbeat. */
  readonly facts: Partial<NodeFacts>;
  readonly capacity: CapacityView;
  /** What its instances that are not gone hold. */
  readonly reserved: CapacityView;
  readonly instanceCount: number;
}

export interface NodeInstanceView {
  readonly id: string;
  readonly tenant: string;
  readonly app: string;
  readonly process: string;
  /** A one-off task: it ends by itself and is not moved. */
  readonly oneOff: boolean;
  readonly state: InstanceState;
  readonly cpuMillis: number;
  readonly memoryMiB: number;
}

export interface NodeRegistration {
  readonly name: string;
  readonly pool?: string;
  /** Public X25519 key. */
  readonly sealingKey: JWK;
  /** Public nkey of the node's NATS user. */
  readonly natsUser: string;
  /** What the node will show to the registry; stored hashed. At least 32 characters. */
  readonly registrySecret: string;
  /** Where other hosts reach it and its containers; both or neither. */
  readonly place?: { readonly address: string; readonly network: string } | null;
}

const registration = z.object({
  name: dnsLabel,
  pool: dnsLabel.default(defaultPool),
  // Stripped to the public half: a private key given by mistake must not reach the database.
  sealingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string() }),
  natsUser: z.string().regex(/^U[A-Z2-7]{55}$/, 'not the public nkey of a user'),
  registrySecret: z.string().min(32, 'use at least 32 characters'),
});

const labelChanges = z.record(labelName, labelValue.nullable());

const byName = new Keyset('nodes', cursorKey.text);
const byId = new Keyset('node-instances', cursorKey.text);

/** For operators and controllers. */
export class Nodes {
  readonly #db: Db;
  readonly #audit: AuditWriter;

  constructor(db: Db, audit: AuditWriter) {
    this.#db = db;
    this.#audit = audit;
  }

  /** By name. */
  async list(args: PageArgs): Promise<Page<NodeView>> {
    const { take, after } = byName.start(args);
    const rows = await this.#db.node.findMany({
      ...(after && { where: { name: { gt: after[0] } } }),
      orderBy: { name: 'asc' },
      take,
    });
    const reserved = await this.#reserved(rows.map(({ id }) => id));
    return byName.page(args, {
      rows,
      totalCount: await this.#db.node.count(),
      key: (row) => [row.name],
      view: (row) => toView(row, reserved.get(row.id)),
    });
  }

  async get(name: string): Promise<NodeView> {
    const node = await this.#db.node.findUnique({ where: { name } });
    if (!node) throw notFound(`node ${name}`);
    return toView(node, (await this.#reserved([node.id])).get(node.id));
  }

  /** Names by id; ids of no node are left out. */
  async names(ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
    const rows = await this.#db.node.findMany({
      where: { id: { in: [...ids] } },
      select: { id: true, name: true },
    });
    return new Map(rows.map(({ id, name }) => [id, name]));
  }

  /** Instances that are not gone, by id. */
  async instances(nodeId: string, args: PageArgs): Promise<Page<NodeInstanceView>> {
    const { take, after } = byId.start(args);
    const where = { nodeId, goneAt: null };
    const rows = await this.#db.instance.findMany({
      where: { ...where, ...(after && { id: { gt: after[0] } }) },
      include: { app: { select: { name: true, tenant: { select: { slug: true } } } } },
      orderBy: { id: 'asc' },
      take,
    });
    return byId.page(args, {
      rows,
      totalCount: await this.#db.instance.count({ where }),
      key: (row) => [row.id],
      view: ({ id, app, process, oneOff, state, cpuMillis, memoryMiB }) => ({
        id,
        tenant: app.tenant.slug,
        app: app.name,
        process,
        oneOff,
        state,
        cpuMillis,
        memoryMiB,
      }),
    });
  }

  /** Idempotent by name: a node that is known keeps its id and gets the new keys. */
  async register(input: NodeRegistration): Promise<NodeView> {
    const { name, pool, sealingKey, natsUser, registrySecret } = parse(registration, input, 'node');
    const values = {
      pool,
      address: input.place?.address ?? null,
      network: input.place?.network ?? null,
      sealingKey: sealingKey as Prisma.InputJsonObject,
      natsUser,
      registryHash: hashSecret(registrySecret),
    };
    const node = await this.#db.node.upsert({
      where: { name },
      create: { id: makeShortId('n'), name, ...values },
      update: values,
    });
    await this.#audit.write('node.register', name, { id: node.id, pool, natsUser });
    return toView(node, (await this.#reserved([node.id])).get(node.id));
  }

  /** Takes no new instances, or does so again, which also ends a drain. */
  async setCordoned(name: string, cordoned: boolean): Promise<NodeView> {
    const action = cordoned ? 'node.cordon' : 'node.uncordon';
    return this.#change(name, action, cordoned ? { cordoned } : { cordoned, draining: false });
  }

  /** Has its instances replaced elsewhere, each before it stops; or stops doing so, and it stays cordoned. */
  async setDraining(name: string, draining: boolean): Promise<NodeView> {
    const action = draining ? 'node.drain' : 'node.cancelDrain';
    return this.#change(name, action, draining ? { cordoned: true, draining } : { draining });
  }

  /**
   * Takes a node out of the fleet for good: it is not let in any more. CONFLICT while instances are
   * on it, unless `force` says that they are lost with it: then they count as gone at once, and others
   * take their place.
   */
  async remove(name: string, force: boolean): Promise<void> {
    const { id } = await this.#lock(name);
    const held = await this.#db.instance.findMany({
      where: { nodeId: id, goneAt: null },
      select: { id: true, appId: true, tenantId: true },
      orderBy: { id: 'asc' },
    });
    if (held.length > 0 && !force)
      throw conflict(
        `${held.length} instances are on node ${name}: drain it first, or use force if it is lost for good`,
      );
    await this.#db.$executeRaw`
      WITH locked AS (
        SELECT "id" FROM "Instance" WHERE "nodeId" = ${id} AND "goneAt" IS NULL
        ORDER BY "id" FOR UPDATE)
      UPDATE "Instance" i SET "state" = 'gone', "desired" = 'gone', "goneAt" = now(), "stateAt" = now(),
        "message" = 'its node was removed'
      FROM locked l WHERE i."id" = l."id"`;
    const apps = [...new Map(held.map(({ appId, tenantId }) => [appId, tenantId]))];
    // Tenants in order: others settle theirs too.
    apps.sort(([, a], [, b]) => (a < b ? -1 : a > b ? 1 : 0));
    const quota = new PlatformQuota(this.#db);
    for (const [appId] of apps) await quota.settle(appId);
    await this.#db.outbox.createMany({
      data: [
        ...held.map((instance) => ({ kind: 'instance', key: `${id}.${instance.id}` })),
        ...apps.map(([appId]) => ({ kind: 'app', key: appId })),
      ],
    });
    await this.#db.node.delete({ where: { id } });
    await this.#audit.write('node.remove', name, { id, force, instances: held.length });
  }

  /** Ids of all nodes. */
  async ids(): Promise<string[]> {
    return (await this.#db.node.findMany({ select: { id: true } })).map(({ id }) => id);
  }

  /** Where the containers of nodes are reached, but those of `except`. */
  async places(except: string): Promise<{ address: string; network: string }[]> {
    const rows = await this.#db.node.findMany({
      where: { id: { not: except }, address: { not: null }, network: { not: null } },
      select: { address: true, network: true },
      orderBy: { id: 'asc' },
    });
    return rows as { address: string; network: string }[];
  }

  /** NOT_FOUND for a node that was removed. */
  async noteCertificate(id: string, endsAt: Date): Promise<void> {
    const node = await this.#db.node.findUnique({ where: { id } });
    if (!node) throw notFound('node');
    if (node.certificateEndsAt?.getTime() === endsAt.getTime()) return;
    await this.#db.node.update({ where: { id }, data: { certificateEndsAt: endsAt } });
  }

  /** Sets labels, and removes those whose value is null. INVALID for what is no label. */
  async setLabels(
    name: string,
    changes: Readonly<Record<string, string | null>>,
  ): Promise<NodeView> {
    const parsed = parse(labelChanges, changes, 'labels');
    const node = await this.#lock(name);
    const labels = { ...(node.labels as Record<string, string>) };
    for (const [label, value] of Object.entries(parsed)) {
      if (value === null) delete labels[label];
      else labels[label] = value;
    }
    if (Object.keys(labels).length > mostLabels)
      throw invalid(`a node may have ${mostLabels} labels`);
    return this.#change(name, 'node.label', { labels });
  }

  /** What is on it stays there, also what may not run in that pool. */
  async setPool(name: string, pool: string): Promise<NodeView> {
    return this.#change(name, 'node.pool', { pool: parse(dnsLabel, pool, 'pool') });
  }

  async #change(
    name: string,
    action: string,
    values: {
      cordoned?: boolean;
      draining?: boolean;
      labels?: Record<string, string>;
      pool?: string;
    },
  ): Promise<NodeView> {
    const { id } = await this.#lock(name);
    const node = await this.#db.node.update({ where: { id }, data: values });
    await this.#audit.write(action, name, values);
    // Those who wait for room may have it now, and those on it may have to go.
    const apps = await this.#db.instance.findMany({
      where: { goneAt: null, OR: [{ nodeId: id }, { nodeId: null }] },
      select: { appId: true },
      distinct: ['appId'],
    });
    await this.#db.outbox.createMany({
      data: apps.map(({ appId }) => ({ kind: 'app', key: appId })),
    });
    return toView(node, (await this.#reserved([id])).get(id));
  }

  /** Before anything else of the transaction: nodes come first in the order of locks. */
  async #lock(name: string): Promise<Node> {
    await this.#db.$queryRaw`SELECT 1 FROM "Node" WHERE "name" = ${name} FOR NO KEY UPDATE`;
    const node = await this.#db.node.findUnique({ where: { name } });
    if (!node) throw notFound(`node ${name}`);
    return node;
  }

  async #reserved(nodeIds: readonly string[]): Promise<ReadonlyMap<string | null, CapacityView>> {
    const rows = await this.#db.instance.groupBy({
      by: ['nodeId'],
      where: { nodeId: { in: [...nodeIds] }, goneAt: null },
      _count: true,
      _sum: { cpuMillis: true, memoryMiB: true, diskMiB: true },
    });
    return new Map(
      rows.map(({ nodeId, _count, _sum }) => [
        nodeId,
        {
          cpuMillis: _sum.cpuMillis ?? 0,
          memoryMiB: _sum.memoryMiB ?? 0,
          diskMiB: _sum.diskMiB ?? 0,
          instances: _count,
        },
      ]),
    );
  }
}

const nothing: CapacityView = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };

function toView(node: Node, reserved: CapacityView = nothing): NodeView {
  const { id, name, pool, state, cordoned, draining, agentVersion, lastSeenAt, createdAt } = node;
  const { cpuMillis, memoryMiB, diskMiB, maxInstances } = node;
  const { address, network, certificateEndsAt } = node;
  return {
    ...{ address, network, certificateEndsAt },
    ...{ id, name, pool, state, cordoned, draining, agentVersion, lastSeenAt, createdAt },
    labels: node.labels as Record<string, string>,
    facts: node.facts as Partial<NodeFacts>,
    capacity: { cpuMillis, memoryMiB, diskMiB, instances: maxInstances },
    reserved,
    instanceCount: reserved.instances,
  };
}
