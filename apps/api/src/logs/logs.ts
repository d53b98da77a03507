import { Inject, Injectable } from '@nestjs/common';
import { invalid, type LogLine } from '@bulkhead/protocol';
import type { Door } from '../graphql/door.ts';
import { endable } from '../graphql/endable.ts';
import { patiently } from '../graphql/patiently.ts';
import { AccessChanges } from '../tenancy/access-changes.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import type { Tenancy } from '@bulkhead/tenancy';
import { pastLines, readPlace, writePlace, type LogPlace } from './log-place.ts';
import { LogStore, type AppLogs, type StoredBatch } from './log-store.ts';
import type { LogArguments, LogPageArguments, WhichLogs } from './logs.models.ts';

/** How often a follower's right to read is looked at again even if nobody said that it changed. Milliseconds. */
const recheckMs = 10_000;
/** Where looking further for lines ends in one answer: a filter may fit nothing at all. */
const mostBatches = 10_000;
const maxLines = 1000;

export interface ReadLine {
  cursor: string;
  at: string;
  instance: string;
  process: string;
  stream: LogLine['stream'];
  text: string;
}

/** Log lines as members of a tenant may read them. */
@Injectable()
export class Logs {
  constructor(
    @Inject(LogStore) private readonly store: LogStore,
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(AccessChanges) private readonly access: AccessChanges,
  ) {}

  async read(door: Door, which: LogArguments): Promise<ReadLine[]> {
    const logs = await locate(door, which);
    return (await this.#history(logs, which)).lines;
  }

  /**
   * Kept lines from the oldest on, in the order in which they arrived, page by page; or the last
   * ones, and where to go on from them.
   */
  async page(door: Door, which: LogPageArguments) {
    if (which.last != null) {
      const { lines, next } = await this.#history(await locate(door, which), {
        ...which,
        tail: which.last,
      });
      const end = writePlace({ ...next, sequence: next.sequence - 1, line: pastLines });
      return { lines, end, more: false };
    }
    const first = which.first ?? maxLines;
    if (first < 1 || first > maxLines) throw invalid(`first must be from 1 to ${maxLines}`);
    const after = which.after ? readPlace(which.after) : null;
    const logs = await locate(door, which);
    const owners = new Owners(this.tenancy, logs.appId);
    const lines: ReadLine[] = [];
    let batches = 0;
    let full = false;
    const end = await this.store.page(logs, windowOf(which), after, async (stored) => {
      batches += 1;
      if (await owners.owns(stored)) {
        for (const line of linesOf(stored, after)) {
          if (!isWanted(line, which)) continue;
          full = lines.length === first;
          if (full) return 'enough';
          lines.push(line);
        }
      }
      return batches < mostBatches ? 'more' : 'enough';
    });
    const enough = full || batches >= mostBatches;
    // Cut within a batch, the rest of it is for the next page.
    const last = full ? lines.at(-1)?.cursor : undefined;
    return { lines, end: last ?? writePlace(end), more: enough };
  }

  /**
   * History first, or what came after a place, then what is new, without a gap or a line twice.
   */
  async follow(door: Door, which: LogArguments, after: string | null) {
    const place = after === null ? null : readPlace(after);
    const logs = await locate(door, which);
    return endable((ending) => this.#lines(door, logs, which, place, ending));
  }

  async *#lines(
    door: Door,
    logs: AppLogs,
    which: LogArguments,
    after: LogPlace | null,
    ending: AbortSignal,
  ) {
    const history = after === null ? await this.#history(logs, which) : { lines: [], next: after };
    for (const line of history.lines) yield { logs: line };

    const stopping = new AbortController();
    const signal = AbortSignal.any([ending, stopping.signal]);
    let refusal: unknown = null;
    const look = () => {
      patiently(() => locate(door, which), signal).catch((error: unknown) => {
        refusal ??= error;
        stopping.abort();
      });
    };
    const recheck = setInterval(look, recheckMs);
    const stopWatching = this.access.watch(door.caller.userId, look);
    const owners = new Owners(this.tenancy, logs.appId);
    try {
      for await (const stored of this.store.follow(logs, history.next, signal)) {
        if (!(await patiently(() => owners.owns(stored), signal))) continue;
        for (const line of linesOf(stored, after)) {
          if (signal.aborted) break;
          if (isWanted(line, which)) yield { logs: line };
        }
      }
    } finally {
      clearInterval(recheck);
      stopWatching();
    }
    if (refusal && !ending.aborted) throw refusal;
  }

  async #history(
    logs: AppLogs,
    which: LogArguments,
  ): Promise<{ lines: ReadLine[]; next: LogPlace }> {
    const tail = which.tail ?? 100;
    if (tail < 0 || tail > maxLines) throw invalid(`tail must be from 0 to ${maxLines}`);
    const owners = new Owners(this.tenancy, logs.appId);
    // Each batch has at least one line, but it may be of another process or of no instance of ours:
    // then further back is looked for more.
    for (let atMost = tail; ; atMost *= 4) {
      let lines: ReadLine[] = [];
      const { count, next } = await this.store.last(logs, windowOf(which), atMost, async (one) => {
        if (!(await owners.owns(one))) return;
        for (const line of linesOf(one)) if (isWanted(line, which)) lines.push(line);
        // Only so many are wanted: those of a long flood must not all lie in memory.
        if (lines.length > 8 * maxLines) lines = lines.slice(-4 * maxLines);
      });
      if (lines.length < tail && count >= atMost && atMost < mostBatches) continue;
      // Batches lie in the order of their arrival; lines want that of their time.
      lines.sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
      return { lines: tail === 0 ? [] : lines.slice(-tail), next };
    }
  }
}

/** Where an app's logs are. @throws DomainError when the caller may not read them. */
function locate(door: Door, { tenant, app, instance }: WhichLogs): Promise<AppLogs> {
  return door.run({ tenant }, async (tx) => {
    const { id, tenantId } = await tx.apps.get(app);
    // Also settles that it is one name and no wildcard of subjects.
    if (instance) await tx.instances.get(id, instance);
    return { tenantId, appId: id, instance: instance ?? null };
  });
}

/**
 * Whether an instance of this app was really on the node that published for it: a node's
 * credentials let it publish under any tenant's subjects, as its own node.
 */
class Owners {
  readonly #known = new Map<string, boolean>();

  constructor(
    private readonly tenancy: Tenancy,
    private readonly appId: string,
  ) {}

  async owns({ node, batch }: StoredBatch): Promise<boolean> {
    const pair = `${node}.${batch.instance}`;
    const known = this.#known.get(pair);
    if (known !== undefined) return known;
    const found = await this.tenancy.platform((tx) =>
      tx.prisma.instance.count({ where: { id: batch.instance, appId: this.appId, nodeId: node } }),
    );
    // A flood of made-up instances must not fill the memory.
    if (this.#known.size >= 10_000) this.#known.clear();
    this.#known.set(pair, found > 0);
    return found > 0;
  }
}

/** The lines of a batch, or of the batch that `after` points into those behind it. */
function linesOf(
  { made, sequence, batch }: StoredBatch,
  after: LogPlace | null = null,
): ReadLine[] {
  const { instance, process } = batch;
  const cut = after?.made === made && after.sequence === sequence ? after.line + 1 : 0;
  return batch.lines
    .slice(0, pastLines)
    .map((line, index) => {
      return { ...line, cursor: writePlace({ made, sequence, line: index }), instance, process };
    })
    .slice(cut);
}

const windowOf = ({ since, until }: WhichLogs) => ({ since: since ?? null, until: until ?? null });

function isWanted(line: ReadLine, { process, since, until }: WhichLogs): boolean {
  if (process && line.process !== process) return false;
  const at = Date.parse(line.at);
  return !(since && at < since.getTime()) && !(until && at > until.getTime());
}
