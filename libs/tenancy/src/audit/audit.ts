import type { Prisma } from '../generated/client.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import type { Db, TenantContext } from '../db/context.ts';

export interface AuditEntryView {
  readonly id: string;
  readonly at: Date;
  readonly actor: string;
  readonly action: string;
  readonly target: string;
  /** A JSON object. */
  readonly detail: string;
}

export interface Actor {
  readonly id: string | null;
  /** Email of the user, "platform", or a node's name. */
  readonly name: string;
}

/** Writes entries for one actor and, but for platform-wide acts, one tenant. The database lets nobody change them. */
export class AuditWriter {
  readonly #db: Db;
  readonly #tenantId: string | null;
  readonly actor: Actor;
  readonly #now: Date;

  constructor(db: Db, tenantId: string | null, actor: Actor, now: Date) {
    this.#db = db;
    this.#tenantId = tenantId;
    this.actor = actor;
    this.#now = now;
  }

  /** `action` is the permission that was used; `detail` never holds a secret. */
  async write(action: string, target: string, detail: Record<string, unknown> = {}): Promise<void> {
    await this.#db.auditEntry.create({
      data: {
        tenantId: this.#tenantId,
        at: this.#now,
        actorId: this.actor.id,
        actor: this.actor.name,
        action,
        target,
        detail: detail as Prisma.InputJsonObject,
      },
    });
  }
}

const byId = new Keyset('audit', cursorKey.bigint);

/** The audit log of the bound tenant. Every changing store method writes to it by itself. */
export class AuditLog {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Newest first. */
  async list(args: PageArgs): Promise<Page<AuditEntryView>> {
    this.#context.require('audit.read');
    const { take, after } = byId.start(args);
    const where = { tenantId: this.#context.tenant.id };
    const rows = await this.#context.db.auditEntry.findMany({
      where: { ...where, ...(after && { id: { lt: after[0] } }) },
      orderBy: { id: 'desc' },
      take,
    });
    return byId.page(args, {
      rows,
      totalCount: await this.#context.db.auditEntry.count({ where }),
      key: (row) => [row.id],
      view: ({ id, at, actor, action, target, detail }) => ({
        ...{ id: String(id), at, actor, action, target },
        detail: JSON.stringify(detail),
      }),
    });
  }

  /** For acts without a store: an exec session, a push to the registry. `detail` never holds a secret. */
  async write(action: string, target: string, detail?: Record<string, unknown>): Promise<void> {
    await this.#context.audit.write(action, target, detail);
  }
}
