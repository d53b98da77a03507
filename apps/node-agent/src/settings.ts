import { isWall, optionalWalls, type Wall } from '@bulkhead/runtime';
import { z } from 'zod';

const port = z.coerce.number().int().min(1).max(65_535);
const percent = z.coerce.number().min(1).max(100);
const optionalNumber = z.coerce.number().int().positive().optional();

/** Names of walls, by commas. Not one that no container starts without, and nothing wholesale. */
const wallNames = z
  .string()
  .transform((text) =>
    text
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== ''),
  )
  .pipe(
    z.array(
      z
        .string()
        .refine(
          (name): name is Wall => isWall(name) && optionalWalls.includes(name),
          `may name ${optionalWalls.join(', ')}; no container starts without the others`,
        ),
    ),
  );

/** What the agent is told from outside; everything secret lies in files under NODE_DIR. */
const settingsSchema = z.object({
  /** State of this agent, absolute; holds node.json, the sealing key and the credentials. */
  NODE_DIR: z.string().startsWith('/', 'must be an absolute path'),
  NATS_URL: z.string().default('nats://127.0.0.1:4222'),
  /** Registry reached by plain http, as host:port. */
  REGISTRY_HOST: z.string().default('127.0.0.1:5000'),
  /** Where nodes attend, host:port, on the control plane's own host; one that joined was told. Without it there are no other hosts. */
  FLEET_STREAMS: z.string().optional(),
  AGENT_METRICS_PORT: port.default(4100),
  AGENT_NETWORK: z.string().default('10.201.0.0/16'),
  AGENT_CGROUP: z.string().default('bulkhead'),
  AGENT_NFT_TABLE: z.string().default('bulkhead'),
  AGENT_VETH_PREFIX: z.string().min(1).max(4).default('bh'),
  AGENT_ID_BASE: z.coerce.number().int().multipleOf(65_536).default(1_048_576),
  AGENT_MAX_INSTANCES: z.coerce.number().int().min(0).default(1500),
  /** Instead of what the host has: two agents on one machine share it out. */
  AGENT_CPU_MILLIS: optionalNumber,
  AGENT_MEMORY_MIB: optionalNumber,
  AGENT_DISK_MIB: optionalNumber,
  /** Size of the pool that the containers' writable layers are in; half of the free space when not given. 0: none, and no limits. */
  AGENT_DISK_POOL_MIB: z.coerce.number().int().min(0).optional(),
  /** Walls between tenants that this host may lack; without being named here they keep the agent from starting. */
  AGENT_ALLOW_MISSING_WALLS: wallNames.default([]),
  /** Share of the images' file system in use, in percent: unused images are removed from HIGH on until LOW. */
  AGENT_IMAGES_HIGH_PERCENT: percent.default(85),
  AGENT_IMAGES_LOW_PERCENT: percent.default(75),
  /** Unpacked images together, MiB, whatever the file system has. */
  AGENT_IMAGES_MAX_MIB: optionalNumber,
  /** The whole time that a pull may take. */
  AGENT_PULL_SECONDS: z.coerce.number().int().min(1).max(86_400).default(600),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
});
export type Settings = z.infer<typeof settingsSchema>;

/** Throws an Error that names every variable that is wrong. */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const result = settingsSchema.safeParse(env);
  if (result.success) return result.data;
  const problems = result.error.issues.map((i) => `  ${i.path.join('.')}: ${i.message}`).join('\n');
  throw new Error(`The agent cannot start, its environment is wrong:\n${problems}`);
}
