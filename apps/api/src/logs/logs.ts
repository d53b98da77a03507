import { Inject, Injectable } from '@nestjs/common';
import { invalid, type LogLine } from '@bulkhead/protocol';
import type { Door } from '../graphql/door.ts';
import { endable } from '../graphql/endable.ts';
import { patiently } from '../graphql/patiently.ts';
import { AccessChanges } from '../tenancy/access-changes.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import type { Tenancy } from '@bulkhead/tenancy';
import { LogStore, type AppLogs, type StoredBatch } from './log-store.ts';
import type { LogArguments } from './logs.models.ts';

/** How often a follower's right to read is looked at again even if nobody said that it changed. Milliseconds. */
const recheckMs = 10_000;
/** Where looking further back for lines ends: a filter may fit nothing at all. */
const mostBatches = 10_000;
const maxTail = 1000;

export interface ReadLine {
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

  /** History first, then what is new, without a gap or a line twice. */
  async follow(door: Door, which: LogArguments) {
    const logs = await locate(door, which);
    return endable((ending) => this.#lines(door, logs, which, ending));
  }

  async *#lines(door: Door, logs: AppLogs, which: LogArguments, ending: AbortSignal) {
    const history = await this.#history(logs, which);
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
        for (const line of linesOf(stored)) {
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

  async #history(logs: AppLogs, which: LogArguments): Promise<{ lines: ReadLine[]; next: number }> {
    const tail = which.tail ?? 100;
    if (tail < 0 || tail > maxTail) throw invalid(`tail must be from 0 to ${maxTail}`);
    const owners = new Owners(this.tenancy, logs.appId);
    // Each batch has at least one line, but it may be of another process or of no instance of ours:
    // then further back is looked for more.
    for (let atMost = tail; ; atMost *= 4) {
      const { batches, next } = await this.store.read(logs, which.since ?? null, atMost);
      const owned: StoredBatch[] = [];
      for (const stored of batches) if (await owners.owns(stored)) owned.push(stored);
      const lines = owned.flatMap(linesOf).filter((line) => isWanted(line, which));
      if (lines.length < tail && batches.length >= atMost && atMost < mostBatches) continue;
      // Batches lie in the order of their arrival; lines want that of their time.
      lines.sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
      return { lines: tail === 0 ? [] : lines.slice(-tail), next };
    }
  }
}

/** Where an app's logs are. @throws DomainError when the caller may not read them. */
function locate(door: Door, { tenant, app, instance }: LogArguments): Promise<AppLogs> {
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

function linesOf({ batch }: StoredBatch): ReadLine[] {
  const { instance, process } = batch;
  const lines = batch.lines.map((line) => ({ ...line, instance, process }));
  const first = batch.lines[0];
  if (batch.dropped === 0 || !first) return lines;
  const text = `${batch.dropped} lines were dropped here: the instance wrote faster than its log rate limit`;
  return [{ at: first.at, stream: 'platform', text, instance, process }, ...lines];
}

function isWanted(line: ReadLine, { process, since }: LogArguments): boolean {
  if (process && line.process !== process) return false;
  return !since || Date.parse(line.at) >= since.getTime();
}
