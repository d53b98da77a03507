import { configName, invalid } from '@bulkhead/protocol';
import { parse } from '../db/parse.ts';

export const maxValueBytes = 32 * 1024;
export const maxConfigBytes = 256 * 1024;

export interface ConfigChange {
  readonly name: string;
  /** Null removes it. */
  readonly value: string | null;
}

/** Names that the platform sets itself: see the environment of instances in docs. */
const isReserved = (name: string) =>
  name === 'PORT' || name === 'HOSTNAME' || name.startsWith('BULKHEAD_');

/** Checks a change against the rules and the whole against its size. Throws INVALID; messages never hold a value. */
export function applyConfigChanges(
  before: ReadonlyMap<string, string>,
  changes: readonly ConfigChange[],
): Map<string, string> {
  const after = new Map(before);
  const seen = new Set<string>();
  for (const { name, value } of changes) {
    parse(configName, name, `config name "${name.slice(0, 130)}"`);
    if (seen.has(name)) throw invalid(`${name} is given twice`, { name });
    seen.add(name);
    if (value === null) {
      after.delete(name);
      continue;
    }
    if (isReserved(name))
      throw invalid(`${name} is set by the platform; use another name`, { name });
    // An environment is made of C strings.
    if (value.includes('\0')) throw invalid(`the value of ${name} holds a NUL character`, { name });
    const bytes = Buffer.byteLength(value);
    if (bytes > maxValueBytes) {
      throw invalid(`the value of ${name} has ${bytes} bytes, at most ${maxValueBytes} fit`, {
        name,
      });
    }
    after.set(name, value);
  }
  const total = [...after].reduce((sum, [n, v]) => sum + Buffer.byteLength(n + v), 0);
  if (total > maxConfigBytes) {
    throw invalid(`the config has ${total} bytes in all, at most ${maxConfigBytes} fit`);
  }
  return after;
}
