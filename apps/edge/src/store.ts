import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { route, type Route } from '@bulkhead/protocol';
import { z } from 'zod';
import { mostFiles } from './settings.ts';
import { routeProblem, type StoredTable } from './table.ts';

const storedSchema = z.object({
  v: z.literal(1),
  capacity: z.number().int().positive().max(1_048_576),
  entries: z.array(
    z.object({
      host: z.string(),
      slot: z.number().int().min(0).nullable(),
      route: route.refine((value) => routeProblem(value) === null).nullable(),
    }),
  ),
});

/** What was written last; null when there is nothing, or nothing readable (which is kept aside). */
export function loadTable(file: string): { table: StoredTable | null; problem: string | null } {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { table: null, problem: null };
    throw error;
  }
  try {
    const { capacity, entries } = storedSchema.parse(JSON.parse(text));
    return { table: { capacity, entries }, problem: null };
  } catch {
    const aside = `${file}.unreadable`;
    renameSync(file, aside);
    return { table: null, problem: `${file} is not readable and was put aside as ${aside}` };
  }
}

/** Whoever reads it sees the old table or the new one; when durable, after a power cut too. */
export function saveTable(file: string, table: StoredTable, options: { durable: boolean }): void {
  const entries = table.entries.map(
    ({ host, slot, route }) =>
      `{"host":${JSON.stringify(host)},"slot":${slot},"route":${textOf(route)}}`,
  );
  const text = `{"v":1,"capacity":${table.capacity},"entries":[${entries.join()}]}`;
  writeAtomically(file, text, options);
}

/**
 * How many connections HAProxy takes, as it last said. Before it ever did: half of the files that this
 * process may open, which is what HAProxy makes of it when it is started alike.
 */
export function loadConnections(file: string): number {
  const known = existsSync(file) ? Number(readFileSync(file, 'utf8')) : NaN;
  if (Number.isSafeInteger(known) && known > 0) return known;
  const files = /^Max open files +\S+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return Math.floor(Math.min(Number(files ?? Infinity), mostFiles) / 2);
}

export const saveConnections = (file: string, connections: number): void =>
  writeAtomically(file, `${connections}\n`, { durable: false });

/** Of ten thousand routes one has changed since the last time. */
const known = new WeakMap<Route, string>();

function textOf(route: Route | null): string {
  if (route === null) return 'null';
  const text = known.get(route) ?? JSON.stringify(route);
  known.set(route, text);
  return text;
}

/** Written beside and renamed, mode 0600. `durable` also waits for the disk. */
export function writeAtomically(file: string, text: string, options: { durable: boolean }): void {
  const next = `${file}.next`;
  const fd = openSync(next, 'w', 0o600);
  try {
    writeFileSync(fd, text);
    if (options.durable) fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(next, file);
  if (!options.durable) return;
  const dir = openSync(dirname(file), 'r');
  try {
    fsyncSync(dir);
  } finally {
    closeSync(dir);
  }
}
