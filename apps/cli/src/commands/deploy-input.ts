import { split } from 'shlex';
import type { ProcessFile } from '../context/project.ts';
import { usageError } from '../errors.ts';
import type {
  HealthCheckInput,
  Process,
  ProcessInput,
  ProcessPriority,
  ProcessProtocol,
} from '../graphql/types.ts';
import { parseLabel } from './kit.ts';

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
  readonly cpuCap?: number;
  readonly pids?: number;
  /** MiB a second. */
  readonly ioRate?: number;
  readonly ioOperations?: number;
  /** MiB a second. */
  readonly networkRate?: number;
  /** KiB a second. */
  readonly logRate?: number;
  readonly readOnly?: boolean;
  readonly mostPerNode?: number;
  readonly protocol?: Protocol;
  readonly priority?: Priority;
  readonly pool?: string;
  /** `name=value`; false: none. */
  readonly nodeLabel?: readonly string[] | false;
  readonly healthPath?: string;
  readonly healthCommand?: string;
  readonly healthInterval?: number;
  readonly healthTimeout?: number;
  readonly healthFailures?: number;
  readonly healthSuccesses?: number;
  readonly healthGrace?: number;
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
  const running = current?.find((process) => process.name === target)?.healthCheck ?? null;
  return all.map((input) => (input.name === target ? withFlags(input, changes, running) : input));
}

function withFlags(
  input: ProcessInput,
  flags: Omit<ProcessFlags, 'process'>,
  running: Process['healthCheck'],
): ProcessInput {
  const { command, port, count, cpu, memory, disk } = flags;
  const healthCheck = checkOf(flags, input.healthCheck ?? withoutNulls(running));
  return {
    ...input,
    ...(command === undefined ? {} : { command: splitCommand(command) }),
    ...(port === undefined ? {} : { port }),
    ...(count === undefined ? {} : { count }),
    ...(cpu === undefined ? {} : { cpuMillis: cpu }),
    ...(memory === undefined ? {} : { memoryMiB: memory }),
    ...(disk === undefined ? {} : { diskMiB: disk }),
    ...limitsOf(flags),
    ...(healthCheck === null ? {} : { healthCheck }),
  };
}

function limitsOf(flags: Omit<ProcessFlags, 'process'>): Partial<ProcessInput> {
  const { cpuCap, pids, ioRate, ioOperations, networkRate, logRate, readOnly, mostPerNode } = flags;
  const { protocol, priority, pool, nodeLabel } = flags;
  return {
    ...(cpuCap === undefined ? {} : { cpuCapMillis: cpuCap }),
    ...(pids === undefined ? {} : { pids }),
    ...(ioRate === undefined ? {} : { ioBytesPerSecond: ioRate * MiB }),
    ...(ioOperations === undefined ? {} : { ioOperationsPerSecond: ioOperations }),
    ...(networkRate === undefined ? {} : { networkBytesPerSecond: networkRate * MiB }),
    ...(logRate === undefined ? {} : { logBytesPerSecond: logRate * 1024 }),
    ...(readOnly === undefined ? {} : { readOnlyRoot: readOnly }),
    ...(mostPerNode === undefined ? {} : { mostPerNode }),
    ...(protocol === undefined ? {} : { protocol: protocolOf(protocol) }),
    ...(priority === undefined ? {} : { priority: priorityOf(priority) }),
    ...(pool === undefined ? {} : { pool }),
    ...(nodeLabel === undefined ? {} : { nodeLabels: (nodeLabel || []).map(parseLabel) }),
  };
}
const MiB = 1024 * 1024;

type Priority = Lowercase<ProcessPriority>;
const priorityOf = (text: Priority): ProcessPriority => text.toUpperCase() as Uppercase<Priority>;
type Protocol = Lowercase<ProcessProtocol>;
const protocolOf = (text: Protocol): ProcessProtocol => text.toUpperCase() as Uppercase<Protocol>;

/** The check that the options ask for, or null when they say nothing of it. Other times alone change the check that is. */
function checkOf(
  flags: Omit<ProcessFlags, 'process'>,
  before: HealthCheckInput | null,
): HealthCheckInput | null {
  const { healthPath: path, healthCommand: command } = flags;
  if (path !== undefined && command !== undefined) {
    throw usageError('--health-path and --health-command: a process has one check; give one');
  }
  const times = defined({
    intervalSeconds: flags.healthInterval,
    timeoutSeconds: flags.healthTimeout,
    failureThreshold: flags.healthFailures,
    successThreshold: flags.healthSuccesses,
    startupGraceSeconds: flags.healthGrace,
  });
  const same = (kind: HealthCheckInput['kind']) => (before?.kind === kind ? before : {});
  if (path !== undefined) return { ...same('HTTP'), ...times, kind: 'HTTP', path };
  if (command !== undefined) {
    const words = splitCommand(command, '--health-command');
    return { ...same('COMMAND'), ...times, kind: 'COMMAND', command: words };
  }
  if (Object.keys(times).length === 0) return null;
  return { ...(before ?? { kind: 'TCP' }), ...times };
}

/** As an input: what a check of its kind has not is left out. */
function withoutNulls(check: Process['healthCheck']): HealthCheckInput | null {
  if (check === null) return null;
  const { path, command, ...rest } = check;
  return { ...rest, ...(path === null ? {} : { path }), ...(command === null ? {} : { command }) };
}

function fromFile(name: string, file: ProcessFile): ProcessInput {
  const { health, command, protocol, priority, nodeLabels, ...rest } = file;
  return {
    name,
    ...defined(rest),
    ...(protocol === undefined ? {} : { protocol: protocolOf(protocol) }),
    ...(priority === undefined ? {} : { priority: priorityOf(priority) }),
    ...(nodeLabels === undefined
      ? {}
      : {
          nodeLabels: Object.entries(nodeLabels).map(([label, value]) => ({ name: label, value })),
        }),
    ...(command === undefined
      ? {}
      : { command: typeof command === 'string' ? splitCommand(command) : command }),
    ...(health === undefined
      ? {}
      : {
          healthCheck: {
            ...defined({
              ...health,
              command:
                typeof health.command === 'string'
                  ? splitCommand(health.command, `health of ${name}`)
                  : health.command,
            }),
            kind: kindOf(health),
          },
        }),
  };
}

function kindOf({ kind, path, command }: NonNullable<ProcessFile['health']>) {
  if (kind !== undefined) return kind.toUpperCase() as Uppercase<typeof kind>;
  if (command !== undefined) return 'COMMAND';
  return path === undefined ? 'TCP' : 'HTTP';
}

/** Without the keys whose value is undefined: JSON leaves them out, the types should know. */
function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

/** Words of a command as a POSIX shell would split them, or a JSON array. Nothing is expanded. */
export function splitCommand(text: string, where = '--command'): string[] {
  if (text.trimStart().startsWith('[')) return commandFromJson(text, where);
  const words = shellWords(text, where);
  if (words.length === 0) throw usageError(`${where}: the command is empty`);
  return words;
}

function shellWords(text: string, where: string): string[] {
  try {
    return split(text);
  } catch {
    throw usageError(`${where}: a quote in ${text} is not closed`);
  }
}

function commandFromJson(text: string, where: string): string[] {
  const words = parseJson(text);
  const fits =
    Array.isArray(words) && words.length > 0 && words.every((word) => typeof word === 'string');
  if (!fits) throw usageError(`${where}: ${text} is not a JSON array of strings`);
  return words;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
