import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { baseFor, ensureBase } from './bases.ts';
import { parseDockerfile, type Dockerfile } from './dockerfile.ts';
import { packLayer, type Layer } from './layer.ts';
import { writeLayout, type ImageConfig } from './oci.ts';
import { run } from './run.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

export interface BuildOptions {
  /** Directory with a Dockerfile and what it copies. */
  context: string;
  /** Where the OCI layout goes; made anew. */
  output: string;
  /** Where base images are kept between builds. */
  cacheDir?: string;
}

export interface BuiltImage {
  layout: string;
  /** Digest of the manifest: the same for the same files. */
  digest: string;
}

/** Builds a Dockerfile that only copies, on an offline stand-in for its base image. */
export async function buildImage(options: BuildOptions): Promise<BuiltImage> {
  const { context, output, cacheDir = join(root, '.bulkhead/cache/images') } = options;
  const file = parseDockerfile(await readFile(join(context, 'Dockerfile'), 'utf8'));
  const base = await ensureBase(baseFor(file.from), cacheDir);
  const work = await mkdtemp(join(tmpdir(), 'bulkhead-image-'));
  try {
    const layer = await copiedLayer(file, context, work);
    await rm(output, { recursive: true, force: true });
    const layers = layer === null ? base.layers : [...base.layers, layer];
    return { layout: output, digest: await writeLayout(output, merge(base.config, file), layers) };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

export interface PushOptions {
  layout: string;
  /** `host:port/tenant/app:tag`. */
  destination: string;
  /** File with the registry's credentials, as `skopeo login` writes it; never on the command line. */
  authFile?: string;
  /** The registry speaks plain HTTP; for loopback only. */
  plainHttp?: boolean;
}

export async function pushImage({
  layout,
  destination,
  authFile,
  plainHttp = false,
}: PushOptions): Promise<void> {
  await run('skopeo', [
    ...['copy', '--quiet'],
    ...(authFile === undefined ? [] : ['--dest-authfile', authFile]),
    ...(plainHttp ? ['--dest-tls-verify=false'] : []),
    ...[`oci:${layout}`, `docker://${destination}`],
  ]);
}

async function copiedLayer(file: Dockerfile, context: string, work: string): Promise<Layer | null> {
  if (file.copies.length === 0 && file.workdir === null) return null;
  const tree = join(work, 'tree');
  await mkdir(tree);
  if (file.workdir !== null) await mkdir(join(tree, file.workdir), { recursive: true });
  for (const { sources, target } of file.copies) {
    for (const source of sources) {
      const from = join(context, source);
      if (relative(context, from).startsWith('..'))
        throw new Error(`COPY ${source}: it is outside of ${context}`);
      const isDirectory = (await lstat(from)).isDirectory();
      // A directory's contents are copied, a file goes under its own name into a directory.
      const to = join(
        tree,
        !isDirectory && target.endsWith('/') ? join(target, basename(source)) : target,
      );
      await mkdir(dirname(to), { recursive: true });
      await cp(from, to, { recursive: true, verbatimSymlinks: true });
    }
  }
  await normaliseModes(tree);
  return packLayer(tree, work);
}

/** As git keeps them: the umask of a checkout must not change a digest. */
async function normaliseModes(path: string): Promise<void> {
  const entry = await lstat(path);
  if (entry.isSymbolicLink()) return;
  await chmod(path, entry.isDirectory() || entry.mode & 0o100 ? 0o755 : 0o644);
  if (!entry.isDirectory()) return;
  for (const name of await readdir(path)) await normaliseModes(join(path, name));
}

function merge(base: ImageConfig, file: Dockerfile): ImageConfig {
  const env = new Map((base.Env ?? []).map((each) => [each.slice(0, each.indexOf('=')), each]));
  for (const [name, value] of file.env) env.set(name, `${name}=${value}`);
  const config: ImageConfig = { ...base, Env: [...env.values()] };
  if (file.labels.length > 0)
    config.Labels = { ...base.Labels, ...Object.fromEntries(file.labels) };
  if (file.exposed.length > 0)
    config.ExposedPorts = Object.fromEntries(file.exposed.map((port) => [port, {}]));
  if (file.workdir !== null) config.WorkingDir = file.workdir;
  if (file.user !== null) config.User = file.user;
  if (file.entrypoint !== null) {
    config.Entrypoint = file.entrypoint;
    // A new entrypoint does away with the base's arguments.
    delete config.Cmd;
  }
  if (file.cmd !== null) config.Cmd = file.cmd;
  return config;
}
