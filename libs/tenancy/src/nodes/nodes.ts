import { dnsLabel, notFound, type NodeFacts } from '@bulkhead/protocol';
import type { JWK } from 'jose';
import { z } from 'zod';
import type { AuditWriter } from '../audit/audit.ts';
import type { Db } from '../db/context.ts';
import { makeShortId } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import type { Node, Prisma } from '../generated/client.ts';
import type { InstanceState, NodeState } from '../generated/enums.ts';
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
  readonly agentVersion: string | null;
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
}

const registration = z.object({
  name: dnsLabel,
  pool: dnsLabel.default('default'),
  // Stripped to the public half: a private key given by mistake must not reach the database.
  sealingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string() }),
  natsUser: z.string().regex(/^U[A-Z2-7]{55}$/, 'not the public nkey of a user'),
  registrySecret: z.string().min(32, 'use at least 32 characters'),
});

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
      view: ({ id, app, process, state, cpuMillis, memoryMiB }) => ({
        id,
        tenant: app.tenant.slug,
        app: app.name,
        process,
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
  const { id, name, pool, state, cordoned, agentVersion, lastSeenAt, createdAt } = node;
  const { cpuMillis, memoryMiB, diskMiB, maxInstances } = node;
  return {
    ...{ id, name, pool, state, cordoned, agentVersion, lastSeenAt, createdAt },
    facts: node.facts as Partial<NodeFacts>,
    capacity: { cpuMillis, memoryMiB, diskMiB, instances: maxInstances },
    reserved,
    instanceCount: reserved.instances,
  };
}
