/**
 * Builds the sample images from Debian and npm packages alone, and pushes them.
 *
 *   node examples/build.ts hello /tmp/hello                     into an OCI layout
 *   node examples/build.ts hello --output oci:/tmp/hello        the same
 *   node examples/build.ts --registry 127.0.0.1:5000 --tenant demo --authfile auth.json [name...]
 *
 * Runs on Node 24 as it is. `buildImage` and `pushImage` are for others to import.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildImage, pushImage } from './builder/image.ts';

export {
  buildImage,
  pushImage,
  type BuildOptions,
  type BuiltImage,
  type PushOptions,
} from './builder/image.ts';

/** The samples, in the order that they are built in when none is named. */
export const samples = ['hello', 'static', 'worker'] as const;

const home = fileURLToPath(new URL('.', import.meta.url));

/** Where an image of this repository is described: a sample, or one of the tests' own. */
export async function contextOf(name: string): Promise<string> {
  for (const parent of [home, join(home, '../e2e/images')]) {
    const context = join(parent, name);
    if (
      /^[a-z][a-z0-9-]*$/.test(name) &&
      (await stat(join(context, 'Dockerfile')).catch(() => null))
    )
      return context;
  }
  throw new Error(`There is no sample "${name}": use ${samples.join(', ')}.`);
}

interface Arguments {
  names: string[];
  output: string | null;
  push: { registry: string; tenant: string; tag: string; authFile: string | null } | null;
  cacheDir: string | null;
}

function readArguments(argv: readonly string[]): Arguments {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      registry: { type: 'string' },
      tenant: { type: 'string' },
      tag: { type: 'string', default: '1' },
      authfile: { type: 'string' },
      output: { type: 'string' },
      cache: { type: 'string' },
    },
  });
  const directories = positionals.filter((each) => each.includes('/'));
  const names = positionals.filter((each) => !each.includes('/'));
  const output = values.output?.replace(/^oci:/, '') ?? directories[0] ?? null;
  const { registry, tenant, tag, authfile } = values;
  if (output === null && (registry === undefined || tenant === undefined)) {
    throw new Error(
      'Say where the images go: a directory, or --registry and --tenant (and --authfile).',
    );
  }
  if (output !== null && names.length !== 1)
    throw new Error('A directory takes one image: name one sample.');
  return {
    names: names.length > 0 ? names : [...samples],
    output,
    push:
      registry === undefined || tenant === undefined
        ? null
        : { registry, tenant, tag, authFile: authfile ?? null },
    cacheDir: values.cache ?? null,
  };
}

async function main(argv: readonly string[]): Promise<void> {
  const { names, output, push, cacheDir } = readArguments(argv);
  for (const name of names) {
    const context = await contextOf(name);
    const scratch = output === null ? await mkdtemp(join(tmpdir(), 'bulkhead-build-')) : null;
    try {
      const layout = output ?? join(scratch ?? '', 'image');
      const { digest } = await buildImage({
        context,
        output: layout,
        ...(cacheDir === null ? {} : { cacheDir }),
      });
      console.log(`${name} ${digest}`);
      if (push === null) continue;
      const destination = `${push.registry}/${push.tenant}/${name}:${push.tag}`;
      await pushImage({
        layout,
        destination,
        plainHttp: /^(127\.|localhost[:/]|\[::1\])/.test(push.registry),
        ...(push.authFile === null ? {} : { authFile: push.authFile }),
      });
      console.log(`${name} pushed as ${destination}`);
    } finally {
      if (scratch !== null) await rm(scratch, { recursive: true, force: true });
    }
  }
}

if (import.meta.main) {
  main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}
