import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { CliError } from '../errors.ts';

const healthFile = z.strictObject({
  kind: z.enum(['http', 'tcp', 'command']).optional(),
  path: z.string().optional(),
  command: z.union([z.string(), z.array(z.string())]).optional(),
  intervalSeconds: z.number().optional(),
  timeoutSeconds: z.number().optional(),
  failureThreshold: z.number().int().optional(),
  successThreshold: z.number().int().optional(),
  startupGraceSeconds: z.number().optional(),
});

const processFile = z.strictObject({
  command: z.union([z.string(), z.array(z.string())]).optional(),
  port: z.number().int().nullable().optional(),
  count: z.number().int().optional(),
  cpuMillis: z.number().int().optional(),
  cpuCapMillis: z.number().int().optional(),
  memoryMiB: z.number().int().optional(),
  diskMiB: z.number().int().optional(),
  pids: z.number().int().optional(),
  ioBytesPerSecond: z.number().int().optional(),
  ioOperationsPerSecond: z.number().int().optional(),
  networkBytesPerSecond: z.number().int().optional(),
  logBytesPerSecond: z.number().int().optional(),
  readOnlyRoot: z.boolean().optional(),
  mostPerNode: z.number().int().optional(),
  protocol: z.enum(['http1', 'http2']).optional(),
  priority: z.enum(['low', 'normal', 'high']).optional(),
  pool: z.string().optional(),
  nodeLabels: z.record(z.string(), z.string()).optional(),
  graceSeconds: z.number().int().optional(),
  health: healthFile.optional(),
});
export type ProcessFile = z.infer<typeof processFile>;

const strategyFile = z.strictObject({
  kind: z.enum(['rolling', 'canary', 'blue-green']),
  maxSurge: z.string().optional(),
  maxUnavailable: z.string().optional(),
  progressSeconds: z.number().int().optional(),
  /** As `--steps` has them: "10%", "50%:5m". */
  steps: z.array(z.string().regex(/^[^:,]+(:[^:,]+)?$/)).optional(),
  manual: z.boolean().optional(),
  keepOldSeconds: z.number().int().optional(),
});
export type StrategyFile = z.infer<typeof strategyFile>;

/** `bulkhead.json` of a project: where it is deployed and, when it likes, how. */
const projectFile = z.strictObject({
  $schema: z.string().optional(),
  app: z.string().optional(),
  tenant: z.string().optional(),
  image: z.string().optional(),
  processes: z.record(z.string(), processFile).optional(),
  strategy: strategyFile.optional(),
});
export type ProjectFile = z.infer<typeof projectFile>;

/** Reads a project file. Null when it is missing and `required` is false. */
export async function readProject(path: string, required: boolean): Promise<ProjectFile | null> {
  let text;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing && !required) return null;
    throw new CliError(
      'USAGE',
      `cannot read ${path}: ${missing ? 'no such file' : (error as Error).message}`,
    );
  }
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new CliError('USAGE', `${path} is not JSON: ${(error as Error).message}`);
  }
  const parsed = projectFile.safeParse(data);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  throw new CliError(
    'USAGE',
    `${path}: ${where === '' ? '' : `${where}: `}${issue?.message ?? 'not valid'}`,
    {
      hint: 'It may hold app, tenant, image, processes and strategy; see `bulkhead deploy --help`.',
    },
  );
}
