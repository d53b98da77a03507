import { invalid } from '@bulkhead/protocol';
import { z } from 'zod';

/** Arguments of every list. `after` is a cursor that an earlier page gave. */
export interface PageArgs {
  /** 1 to 200; 50 when absent. */
  readonly first?: number | null | undefined;
  readonly after?: string | null | undefined;
}

/** One page, in the shape of the GraphQL connections. */
export interface Page<T> {
  readonly edges: readonly { readonly cursor: string; readonly node: T }[];
  readonly nodes: readonly T[];
  readonly pageInfo: {
    readonly hasNextPage: boolean;
    readonly hasPreviousPage: boolean;
    readonly startCursor: string | null;
    readonly endCursor: string | null;
  };
  readonly totalCount: number;
}

export const defaultPageSize = 50;
export const maxPageSize = 200;

type KeyPart = string | number | bigint | Date;

/** The parts a cursor can be made of, as they come back. */
export const cursorKey = {
  text: z.string().max(1000),
  uuid: z.uuid(),
  int: z.int(),
  bigint: z
    .string()
    .regex(/^\d{1,18}$/)
    .transform(BigInt),
  date: z.iso.datetime().transform((text) => new Date(text)),
};

/**
 * A keyset list: pages stay right while rows come and go, and a far page costs as little as the
 * first. `name` keeps cursors of one list from being used in another.
 */
export class Keyset<const Parts extends readonly z.ZodType[]> {
  readonly #name: string;
  readonly #key: z.ZodType;

  constructor(name: string, ...parts: Parts) {
    this.#name = name;
    this.#key = z.tuple([z.literal(name), ...parts] as never);
  }

  /** Reads the arguments: one row more than asked for tells whether there is a next page. */
  start(args: PageArgs): {
    take: number;
    after: { -readonly [I in keyof Parts]: z.output<Parts[I]> } | null;
  } {
    return { take: pageSize(args) + 1, after: args.after == null ? null : this.#read(args.after) };
  }

  /** Makes the page from the rows found with `take`. */
  page<Row, T>(
    args: PageArgs,
    found: {
      rows: readonly Row[];
      totalCount: number;
      key: (row: Row) => readonly KeyPart[];
      view: (row: Row) => T;
    },
  ): Page<T> {
    const first = pageSize(args);
    const edges = found.rows.slice(0, first).map((row) => ({
      cursor: this.#write(found.key(row)),
      node: found.view(row),
    }));
    return {
      edges,
      nodes: edges.map((edge) => edge.node),
      pageInfo: {
        hasNextPage: found.rows.length > first,
        // The row that `after` names came before this page.
        hasPreviousPage: args.after != null,
        startCursor: edges[0]?.cursor ?? null,
        endCursor: edges.at(-1)?.cursor ?? null,
      },
      totalCount: found.totalCount,
    };
  }

  #write(key: readonly KeyPart[]): string {
    const parts = key.map((part) => (typeof part === 'bigint' ? String(part) : part));
    return Buffer.from(JSON.stringify([this.#name, ...parts])).toString('base64url');
  }

  #read(cursor: string): never {
    let value: unknown;
    try {
      value = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    } catch {
      value = null;
    }
    const key = this.#key.safeParse(value);
    if (!key.success) {
      throw invalid('after is no cursor of this list; use an endCursor that it gave you');
    }
    return (key.data as unknown[]).slice(1) as never;
  }
}

function pageSize(args: PageArgs): number {
  const first = args.first ?? defaultPageSize;
  if (!Number.isInteger(first) || first < 1 || first > maxPageSize) {
    throw invalid(`first must be a whole number from 1 to ${maxPageSize}`, { first });
  }
  return first;
}
