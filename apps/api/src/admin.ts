/**
 * Set-up work that needs no running API, on the API's host and with its environment:
 *
 *   node apps/api/dist/admin.js migrate
 *   node apps/api/dist/admin.js ensure-operator   {"email", "password", "name"}
 *   node apps/api/dist/admin.js ensure-tenant     {"slug", "name", "owner": {"email", "password", "name"}}
 *   node apps/api/dist/admin.js register-node     {"name", "sealingKey", "natsUser", "registrySecret"}
 *
 * What a command needs is read as JSON from standard input, since arguments can be seen by every
 * process of the machine; what came of it is printed as JSON. All can be repeated.
 */
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import { Tenancy, migrate } from '@bulkhead/tenancy';
import { readJwk } from './auth/session-tokens.ts';
import { readSettings, type Settings } from './settings.ts';

const user = z.object({
  email: z.string().min(1),
  password: z.string().min(1),
  name: z.string().min(1),
});
const tenant = z.object({
  slug: z.string().min(1),
  name: z.string().min(1).optional(),
  owner: user,
});
const node = z.object({
  name: z.string().min(1),
  sealingKey: z.looseObject({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string() }),
  natsUser: z.string().min(1),
  registrySecret: z.string().min(32),
  place: z.object({ address: z.ipv4(), network: z.cidrv4() }).optional(),
});

type Command = (settings: Settings) => Promise<unknown>;

const commands: Readonly<Record<string, Command>> = {
  migrate: async ({ databaseUrl }) => ({ applied: await migrate(databaseUrl) }),

  'ensure-operator': async (settings) => {
    const input = user.parse(await readInput());
    return withTenancy(settings, (tenancy) => tenancy.ensureOperator(input));
  },

  'ensure-tenant': async (settings) => {
    const { slug, name, owner } = tenant.parse(await readInput());
    return withTenancy(settings, async (tenancy) => {
      await tenancy.ensureUser(owner);
      return tenancy.ensureTenant({
        slug,
        ownerEmail: owner.email,
        ...(name !== undefined && { name }),
      });
    });
  },

  'register-node': async (settings) => {
    const { sealingKey, place = null, ...input } = node.parse(await readInput());
    // Whatever else came along: only the public half is kept.
    const { kty, crv, x } = sealingKey;
    return withTenancy(settings, async (tenancy) => {
      const { id, name } = await tenancy.registerNode({
        ...input,
        place,
        sealingKey: { kty, crv, x },
      });
      return { id, name };
    });
  },
};

async function withTenancy<T>(
  settings: Settings,
  work: (tenancy: Tenancy) => Promise<T>,
): Promise<T> {
  const configKey = await readJwk(settings.keyDir, 'config.jwk.json');
  const tenancy = await Tenancy.connect({
    databaseUrl: settings.databaseUrl,
    configKey,
    poolSize: 2,
  });
  try {
    return await work(tenancy);
  } finally {
    await tenancy.close();
  }
}

async function readInput(): Promise<unknown> {
  const given = await text(process.stdin);
  try {
    return JSON.parse(given);
  } catch {
    // The parser's own message would repeat the input, and with it a password.
    throw new Error('give the input as a JSON object on standard input');
  }
}

async function main(): Promise<void> {
  const [name = '', ...rest] = process.argv.slice(2);
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command || rest.length > 0) {
    throw new Error(`give one command: ${Object.keys(commands).join(', ')}`);
  }
  const result = await command(readSettings(process.env));
  // The migration engine leaves a timer of ten seconds behind; nobody shall wait for it.
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
}

function explain(error: unknown): string {
  if (error instanceof z.ZodError) {
    return error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ');
  }
  return error instanceof Error ? error.message : String(error);
}

main().catch((error: unknown) => {
  process.stderr.write(`${explain(error)}\n`);
  process.exitCode = 1;
});
