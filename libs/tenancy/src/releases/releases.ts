import type { ImageConfig, ProcessDefinition } from '@bulkhead/protocol';
import type { ConfigCipher } from '../config/cipher.ts';
import type { Db, TenantContext } from '../db/context.ts';
import { isUuid } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { emailsOf } from '../members/emails.ts';
import { readProcesses } from './stored-processes.ts';

/** An image as the registry answered for it: what a release pins. */
export interface ResolvedImage {
  /** As the user wrote it. */
  readonly reference: string;
  /** registry/repository, without tag or digest. */
  readonly repository: string;
  readonly digest: string;
  /** Compressed size in bytes. */
  readonly size: number;
  readonly config: ImageConfig;
}

export interface ReleaseView {
  readonly id: string;
  readonly appId: string;
  readonly version: number;
  /** The reference as the user wrote it. */
  readonly image: string;
  readonly digest: string;
  readonly description: string;
  readonly createdAt: Date;
  /** Email; null for the platform or a user who is no member any more. */
  readonly createdBy: string | null;
  readonly processes: readonly ProcessDefinition[];
  readonly configNames: readonly string[];
  readonly current: boolean;
}

export interface ImageView {
  readonly repository: string;
  readonly digest: string;
  readonly reference: string;
  readonly size: number;
  /** Name of the app. */
  readonly app: string;
  /** The first version of the app that used it. */
  readonly release: number;
  readonly createdAt: Date;
}

const columns = {
  id: true,
  appId: true,
  version: true,
  imageReference: true,
  imageDigest: true,
  description: true,
  createdAt: true,
  createdById: true,
  processes: true,
  configCiphertext: true,
  app: { select: { currentReleaseId: true } },
} as const;

interface Row {
  id: string;
  appId: string;
  version: number;
  imageReference: string;
  imageDigest: string;
  description: string;
  createdAt: Date;
  createdById: string | null;
  processes: unknown;
  configCiphertext: string;
  app: { currentReleaseId: string | null };
}

const byVersion = new Keyset('releases', cursorKey.int);
const byRelease = new Keyset('images', cursorKey.uuid);

/** Releases of apps of the bound tenant. They are made by deployments only. */
export class Releases {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Newest first. */
  async list(appId: string, args: PageArgs): Promise<Page<ReleaseView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byVersion.start(args);
    const where = { appId, tenantId: tenant.id };
    const rows = await db.release.findMany({
      where: { ...where, ...(after && { version: { lt: after[0] } }) },
      select: columns,
      orderBy: { version: 'desc' },
      take,
    });
    const views = await this.#views(rows);
    return byVersion.page(args, {
      rows: views,
      totalCount: await db.release.count({ where }),
      key: (row) => [row.version],
      view: (row) => row,
    });
  }

  /** Many at once, by id; what is not this tenant's is left out. */
  async byIds(ids: readonly string[]): Promise<ReadonlyMap<string, ReleaseView>> {
    const { db, tenant } = this.#context;
    const rows = await db.release.findMany({
      where: { id: { in: ids.filter(isUuid) }, tenantId: tenant.id },
      select: columns,
    });
    return new Map((await this.#views(rows)).map((view) => [view.id, view]));
  }

  /** Images that releases use, newest first, each app and digest once. */
  async images(args: PageArgs): Promise<Page<ImageView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byRelease.start(args);
    // The ids are UUIDs of version 7: their order is the order in time.
    const firsts = await db.$queryRaw<{ id: string }[]>`
      SELECT "id" FROM (
        SELECT DISTINCT ON ("appId", "imageRepository", "imageDigest") "id"
        FROM "Release" WHERE "tenantId" = ${tenant.id}::uuid
        ORDER BY "appId", "imageRepository", "imageDigest", "version"
      ) AS firsts`;
    const ids = firsts.map(({ id }) => id);
    const rows = await db.release.findMany({
      where: { id: { in: ids, ...(after && { lt: after[0] }) }, tenantId: tenant.id },
      include: { app: { select: { name: true } } },
      orderBy: { id: 'desc' },
      take,
    });
    return byRelease.page(args, {
      rows,
      totalCount: ids.length,
      key: (row) => [row.id],
      view: (row) => ({
        repository: row.imageRepository,
        digest: row.imageDigest,
        reference: row.imageReference,
        size: Number(row.imageSize),
        app: row.app.name,
        release: row.version,
        createdAt: row.createdAt,
      }),
    });
  }

  async #views(rows: readonly Row[]): Promise<ReleaseView[]> {
    const { db, cipher } = this.#context;
    const emails = await emailsOf(
      db,
      rows.map((row) => row.createdById),
    );
    return Promise.all(
      rows.map(async (row) => ({
        id: row.id,
        appId: row.appId,
        version: row.version,
        image: row.imageReference,
        digest: row.imageDigest,
        description: row.description,
        createdAt: row.createdAt,
        createdBy: emails.get(row.createdById ?? '') ?? null,
        processes: readProcesses(row.processes),
        configNames: Object.keys(await openSnapshot(cipher, row)).sort(),
        current: row.app.currentReleaseId === row.id,
      })),
    );
  }
}

/** For controllers, on the platform door. */
export class PlatformReleases {
  readonly #cipher: ConfigCipher;

  constructor(cipher: ConfigCipher) {
    this.#cipher = cipher;
  }

  /** The config that instances of a release get, in the clear. Never log it. */
  async openConfig(release: {
    appId: string;
    configCiphertext: string;
  }): Promise<Record<string, string>> {
    return openSnapshot(this.#cipher, release);
  }
}

/** The config that a release was made with. */
export async function openSnapshot(
  cipher: ConfigCipher,
  release: { appId: string; configCiphertext: string },
): Promise<Record<string, string>> {
  const text = await cipher.open(release.configCiphertext, release.appId);
  return JSON.parse(text) as Record<string, string>;
}

/** The release with this version; null when the app has none. */
export function findVersion(db: Db, tenantId: string, appId: string, version: number) {
  return db.release.findFirst({ where: { appId, tenantId, version } });
}
