import { split } from 'shlex';
import type { ProcessFile } from '../context/project.ts';
import { usageError } from '../errors.ts';
import type { Process, ProcessInput } from '../graphql/types.ts';

// Pure: from what was typed, what the project file says and what runs now to what is asked for.

/** The options of `deploy` that describe one process. */
export interface ProcessFlags {
  readonly process?: string;
  readonly command?: string;
  readonly port?: number;
  readonly count?: number;
  readonly cpu?: number;
  readonly memory?: number;
  readonly disk?: number;
  readonly healthPath?: string;
}

/**
 * The processes to send, or null for "as before". The API keeps what an input leaves out as it was,
 * and drops processes that are not listed. So the project file's list is sent as it is; without one
 * the names of what runs now go along, and `--memory 512` changes the memory of one process and
 * nothing else. Options change one process, `web` unless named.
 */
export function processInputs(
  file: Readonly<Record<string, ProcessFile>> | undefined,
  flags: ProcessFlags,
  current: readonly Process[] | null,
): ProcessInput[] | null {
  const { process: name, ...changes } = flags;
  const changed = Object.values(changes).some((value) => value !== undefined);
  if (file === undefined && !changed) return null;
  const base =
    file === undefined
      ? (current ?? []).map((known): ProcessInput => ({ name: known.name }))
      : Object.entries(file).map(([process, wanted]) => fromFile(process, wanted));
  if (!changed) return base;
  const target = name ?? 'web';
  const known = base.some((input) => input.name === target);
  const all = known ? base : [...base, { name: target }];
  return all.map((input) => (input.name === target ? withFlags(input, changes) : input));
}

function withFlags(input: ProcessInput, flags: Omit<ProcessFlags, 'process'>): ProcessInput {
  const { command, port, count, cpu, memory, disk, healthPath } = flags;
  return {
    ...input,
    ...(command === undefined ? {} : { command: splitCommand(command) }),
    ...(port === undefined ? {} : { port }),
    ...(count === undefined ? {} : { count }),
    ...(cpu === undefined ? {} : { cpuMillis: cpu }),
    ...(memory === undefined ? {} : { memoryMiB: memory }),
    ...(disk === undefined ? {} : { diskMiB: disk }),
    ...(healthPath === undefined
      ? {}
      : { healthCheck: { ...input.healthCheck, kind: 'HTTP' as const, path: healthPath } }),
  };
}

function fromFile(name: string, { health, command, ...rest }: ProcessFile): ProcessInput {
  return {
    name,
    ...defined(rest),
    ...(command === undefined
      ? {}
      : { command: typeof command === 'string' ? splitCommand(command) : command }),
    ...(health === undefined
      ? {}
      : {
          healthCheck: {
            ...defined(health),
            kind:
              health.kind === 'tcp' || (health.kind === undefined && health.path === undefined)
                ? 'TCP'
                : 'HTTP',
          },
        }),
  };
}

/** Without the keys whose value is undefined: JSON leaves them out, the types should know. */
function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

/** Words of a command as a POSIX shell would split them, or a JSON array. Nothing is expanded. */
export function splitCommand(text: string): string[] {
  if (text.trimStart().startsWith('[')) return commandFromJson(text);
  const words = shellWords(text);
  if (words.length === 0) throw usageError('--command: the command is empty');
  return words;
}

function shellWords(text: string): string[] {
  try {
    return split(text);
  } catch {
    throw usageError(`--command: a quote in ${text} is not closed`);
  }
}

function commandFromJson(text: string): string[] {
  const words = parseJson(text);
  const fits =
    Array.isArray(words) && words.length > 0 && words.every((word) => typeof word === 'string');
  if (!fits) throw usageError(`--command: ${text} is not a JSON array of strings`);
  return words;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
