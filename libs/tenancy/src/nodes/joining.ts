import {
  defaultPool,
  conflict,
  dnsLabel,
  invalid,
  notFound,
  unauthenticated,
  nodeLabels,
} from '@bulkhead/protocol';
import { isIPv4 } from 'node:net';
import { z } from 'zod';
import type { AuditWriter } from '../audit/audit.ts';
import type { Db } from '../db/context.ts';
import { isUuid, makeShortId } from '../db/ids.ts';
import { parse } from '../db/parse.ts';
import type { JoinToken, Prisma } from '../generated/client.ts';
import { hashSecret, makeTokenSecret } from '../tokens/secret.ts';
import { firstFreeNetwork } from './networks.ts';

export interface JoinTokenView {
  readonly id: string;
  readonly name: string | null;
  readonly pool: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdBy: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly usedAt: Date | null;
}

const tokenInput = z.object({
  name: dnsLabel.nullish(),
  pool: dnsLabel.nullish(),
  labels: nodeLabels.default({}),
  ttlMinutes: z
    .number()
    .int()
    .min(1)
    .max(7 * 24 * 60)
    .nullish(),
});

const defaultTtlMinutes = 60;

const request = z.object({
  secret: z.string().max(100),
  /** What the host calls itself, when the token gives no name. */
  name: dnsLabel,
  sealingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string().max(100) }),
  natsUser: z.string().regex(/^U[A-Z2-7]{55}$/, 'not the public nkey of a user'),
  /** SHA-256 of what the node will show to the registry, hexadecimal. */
  registryHash: z.string().regex(/^[0-9a-f]{64}$/),
  address: z.string().refine((address) => isIPv4(address), 'give an IPv4 address'),
});
export type JoinRequest = z.input<typeof request>;

export interface JoinedNode {
  readonly id: string;
  readonly name: string;
  readonly network: string;
}

/** Tokens by which hosts join, and the joining itself. */
export class Joining {
  readonly #db: Db;
  readonly #audit: AuditWriter;
  readonly #now: Date;

  constructor(db: Db, audit: AuditWriter, now: Date) {
    this.#db = db;
    this.#audit = audit;
    this.#now = now;
  }

  /** Newest first; those that nobody can use any more are left out after a week. */
  async tokens(): Promise<JoinTokenView[]> {
    const since = new Date(this.#now.getTime() - 7 * 86_400_000);
    const rows = await this.#db.joinToken.findMany({
      where: { expiresAt: { gt: since } },
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      take: 1000,
    });
    return rows.map(toView);
  }

  /** The secret is in the answer and nowhere else. */
  async createToken(
    input: z.input<typeof tokenInput>,
  ): Promise<{ readonly secret: string; readonly token: JoinTokenView }> {
    const { name, pool, labels, ttlMinutes } = parse(tokenInput, input, 'token');
    if (name != null && (await this.#db.node.findUnique({ where: { name } })))
      throw conflict(`there is a node ${name} already`);
    const secret = makeTokenSecret();
    const ttl = (ttlMinutes ?? defaultTtlMinutes) * 60_000;
    const token = await this.#db.joinToken.create({
      data: {
        hash: hashSecret(secret),
        name: name ?? null,
        pool: pool ?? defaultPool,
        labels,
        createdBy: this.#audit.actor.name,
        createdAt: this.#now,
        expiresAt: new Date(this.#now.getTime() + ttl),
      },
    });
    await this.#audit.write('node.token.create', token.id, { name, pool: token.pool, labels });
    return { secret, token: toView(token) };
  }

  async revokeToken(id: string): Promise<void> {
    const found = isUuid(id) ? await this.#db.joinToken.findUnique({ where: { id } }) : null;
    if (!found) throw notFound('join token');
    if (found.usedAt) throw conflict('a host has joined by it; remove the node instead');
    await this.#db.joinToken.delete({ where: { id } });
    await this.#audit.write('node.token.revoke', id);
  }

  /**
   * Makes a node of the host that shows a token. A token is good for one host: of two at the same
   * moment one gets it. That one may ask again, with the same keys, for as long as the token lasts.
   * UNAUTHENTICATED for a token that is unknown, used or over, in the same words.
   */
  async join(input: JoinRequest): Promise<JoinedNode> {
    const wants = parse(request, input, 'request');
    const [taken] = await this.#db.$queryRaw<{ id: string }[]>`
      UPDATE "JoinToken" SET "usedAt" = coalesce("usedAt", ${this.#now}), "usedBy" = ${wants.natsUser}
      WHERE "hash" = ${hashSecret(wants.secret)} AND "expiresAt" > ${this.#now}
        AND ("usedBy" IS NULL OR "usedBy" = ${wants.natsUser})
      RETURNING "id"::text AS "id"`;
    if (!taken)
      throw unauthenticated('this token is unknown, used or over; ask an operator for a new one');
    const token = await this.#db.joinToken.findUniqueOrThrow({ where: { id: taken.id } });
    return token.nodeId === null ? this.#make(token, wants) : this.#again(token.nodeId);
  }

  async #again(id: string): Promise<JoinedNode> {
    const node = await this.#db.node.findUnique({ where: { id } });
    if (!node?.network) throw unauthenticated('this node was removed; ask for a new token');
    return { id, name: node.name, network: node.network };
  }

  async #make(token: JoinToken, wants: z.output<typeof request>): Promise<JoinedNode> {
    // Two that join at once must not get one network.
    await this.#db.$queryRaw`SELECT pg_advisory_xact_lock(${networkLock})::text`;
    const name = token.name ?? wants.name;
    if (await this.#db.node.findUnique({ where: { name } }))
      throw conflict(`there is a node ${name} already; give this one another name`);
    if (await this.#db.node.findUnique({ where: { natsUser: wants.natsUser } }))
      throw invalid('a node has this key already; delete the directory of its identity');
    const rows = await this.#db.node.findMany({ select: { network: true } });
    const network = firstFreeNetwork(rows.flatMap((row) => row.network ?? []));
    if (network === null) throw conflict('the fleet has no network left for another node');
    const id = makeShortId('n');
    await this.#db.node.create({
      data: {
        ...{ id, name, network, pool: token.pool, address: wants.address },
        labels: token.labels as Prisma.InputJsonObject,
        sealingKey: wants.sealingKey,
        natsUser: wants.natsUser,
        registryHash: Buffer.from(wants.registryHash, 'hex'),
        createdAt: this.#now,
      },
    });
    await this.#db.joinToken.update({ where: { id: token.id }, data: { nodeId: id } });
    await this.#audit.write('node.join', name, { id, token: token.id, address: wants.address });
    return { id, name, network };
  }
}

/** Any number that no other lock has. */
const networkLock = 7_202_019;

function toView(row: JoinToken): JoinTokenView {
  const { id, name, pool, createdBy, createdAt, expiresAt, usedAt } = row;
  const labels = row.labels as Record<string, string>;
  return { id, name, pool, labels, createdBy, createdAt, expiresAt, usedAt };
}
