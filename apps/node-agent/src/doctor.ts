import { execFile } from 'node:child_process';
import { styleText } from 'node:util';
import { examineHost, missingWalls, planRefusal, type Finding, type Wall } from '@bulkhead/runtime';
import { z } from 'zod';
import { readSettings, type Settings } from './settings.ts';

/** The longest that a look at the host may take: each program in it has a deadline of its own. */
const deadlineMs = 120_000;

const help = `Tells what this host can do for containers of several tenants, by trying, and leaves nothing behind.

Usage: bulkhead-agent doctor [--json]

It reads the agent's environment (NODE_DIR, AGENT_*) where it is set, needs no running platform and
works beside a running agent. Exit code: 0 every wall stands, 1 one is missing, 2 wrong usage.

Examples:
  npx bulkhead-agent doctor
  npx bulkhead-agent doctor --json | jq '.[] | select(.status != "ok")'
`;

/** `bulkhead-agent doctor`; returns the exit code. */
export async function doctor(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<0 | 1 | 2> {
  if (args.length === 1 && (args[0] === '--help' || args[0] === '-h')) {
    process.stdout.write(help);
    return 0;
  }
  if (args.length > 1 || (args.length === 1 && args[0] !== '--json')) {
    process.stderr.write(help);
    return 2;
  }
  let settings: Settings;
  try {
    settings = readSettings({ NODE_DIR: '/var/lib/bulkhead/node', ...env });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const findings = await examineHost({
    dir: settings.NODE_DIR,
    network: settings.AGENT_NETWORK,
    nftTable: settings.AGENT_NFT_TABLE,
    vethPrefix: settings.AGENT_VETH_PREFIX,
    idBase: settings.AGENT_ID_BASE,
    instances: settings.AGENT_MAX_INSTANCES,
    ...(settings.AGENT_DISK_POOL_MIB === undefined
      ? {}
      : { diskPoolMiB: settings.AGENT_DISK_POOL_MIB }),
  });
  process.stdout.write(
    args.length === 0 ? table(findings) : `${JSON.stringify(findings, null, 2)}\n`,
  );
  return missingWalls(findings).length > 0 ? 1 : 0;
}

const paint = { ok: 'green', degraded: 'yellow', missing: 'red' } as const;

function table(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const indent = ' '.repeat(width + 12);
  const lines = findings.map(({ check, status, wall, found, fallback, meaning, todo }) => {
    // Written to standard output only, so that it knows whether a terminal is there.
    const painted = styleText(paint[status], status.padEnd(9), { stream: process.stdout });
    const more = [
      fallback === null ? null : `instead: ${fallback}`,
      meaning,
      todo === null ? null : `to do: ${todo}`,
    ].flatMap((text) => (text === null ? [] : [`\n${indent}${text}`]));
    return `${check.padEnd(width)} ${painted} ${wall && status === 'missing' ? 'WALL: ' : ''}${found}${more.join('')}`;
  });
  const gone = missingWalls(findings);
  const verdict =
    gone.length === 0
      ? 'Every wall between tenants stands.'
      : `Missing between tenants: ${gone.join(', ')}. The agent does not start here unless it is told so.`;
  return `${lines.join('\n')}\n\n${verdict}\n`;
}

const findingSchema = z.object({
  check: z.string(),
  status: z.enum(['ok', 'degraded', 'missing']),
  wall: z.boolean(),
  found: z.string(),
  ...{
    fallback: z.string().nullable(),
    meaning: z.string().nullable(),
    todo: z.string().nullable(),
  },
});

/**
 * Walls that this host lacks and that the settings allow to be missing; throws, saying which, when
 * others are. In a process of its own, which the look at the host changes and may be hurt by.
 */
export async function findMissingWalls(settings: Settings): Promise<Wall[]> {
  const findings = z.array(findingSchema).parse(JSON.parse(await runDoctor()));
  const refusal = planRefusal(findings, settings.AGENT_ALLOW_MISSING_WALLS);
  if (refusal !== null) throw new Error(refusal);
  return missingWalls(findings);
}

function runDoctor(): Promise<string> {
  const args = [...process.execArgv, process.argv[1] ?? '', 'doctor', '--json'];
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      args,
      { timeout: deadlineMs, killSignal: 'SIGKILL', maxBuffer: 2 ** 20 },
      (error, stdout, stderr) => {
        // A wall that is missing is its answer, not its failure.
        if (error === null || error.code === 1) return resolve(stdout);
        reject(new Error(`This host could not be examined: ${stderr.trim() || error.message}`));
      },
    );
  });
}
