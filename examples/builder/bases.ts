/**
 * Base images made from Debian and npm packages alone, for a machine without a registry to pull
 * from: `busybox` (a static shell) and `node` (that, Node.js and the few libraries it needs). They
 * stand in for the public images that the Dockerfiles name by default.
 */
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { packLayer, type Layer } from './layer.ts';
import type { ImageConfig } from './oci.ts';
import { run } from './run.ts';

export type BaseName = 'busybox' | 'node';

export interface Base {
  config: ImageConfig;
  layers: Layer[];
}

/** Raised when what a base is made of changes here. */
const recipe = 2;

/** Which of ours stands in for a public image. */
export function baseFor(reference: string): BaseName {
  const name = /^(?:docker\.io\/)?(?:library\/)?([a-z]+)(?::|$)/.exec(reference)?.[1];
  if (name === 'busybox' || name === 'node') return name;
  throw new Error(
    `There is no offline stand-in for the base image "${reference}": use busybox or node, or build with internet.`,
  );
}

/** Makes the base image unless `cacheDir` has it. */
export async function ensureBase(name: BaseName, cacheDir: string): Promise<Base> {
  const sources = [
    `recipe ${recipe}`,
    process.arch,
    ...(name === 'node' ? [nodePackage().version] : []),
  ];
  const key = createHash('sha256').update(sources.join('\n')).digest('hex').slice(0, 12);
  const home = join(cacheDir, `${name}-${key}`);
  const cached = await readBase(home);
  if (cached) return cached;
  await mkdir(cacheDir, { recursive: true });
  const work = await mkdtemp(join(cacheDir, 'work-'));
  try {
    const [tree, layers] = [join(work, 'tree'), join(work, 'base')];
    await mkdir(layers);
    await makeTree(name, tree, work);
    const base: Base = { config: configOf(name), layers: [await packLayer(tree, layers)] };
    await writeFile(join(layers, 'base.json'), JSON.stringify(base));
    // Two builds at once make the same; the one that is second uses the first's.
    await rename(layers, home).catch(async (error: unknown) => {
      if (!(await readBase(home))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const made = await readBase(home);
  if (!made) throw new Error(`${home} was just made and is not readable`);
  return made;
}

async function readBase(home: string): Promise<Base | null> {
  const text = await readFile(join(home, 'base.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const base = JSON.parse(text) as Base;
  return {
    ...base,
    layers: base.layers.map((layer) => ({ ...layer, file: join(home, basename(layer.file)) })),
  };
}

const configOf = (name: BaseName): ImageConfig => ({
  Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
  Labels: { 'org.opencontainers.image.title': `bulkhead offline ${name}` },
});

async function makeTree(name: BaseName, tree: string, work: string): Promise<void> {
  for (const dir of ['bin', 'etc', 'root', 'tmp', 'usr/local/bin', 'usr/bin', 'var/tmp']) {
    await mkdir(join(tree, dir), { recursive: true });
  }
  for (const dir of ['tmp', 'var/tmp']) await chmod(join(tree, dir), 0o1777);
  await writeFile(
    join(tree, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n',
  );
  await writeFile(join(tree, 'etc/group'), 'root:x:0:\napp:x:1000:\n');
  await writeFile(join(tree, 'etc/hosts'), '127.0.0.1 localhost\n::1 localhost\n');
  await writeFile(
    join(tree, 'etc/nsswitch.conf'),
    'passwd: files\ngroup: files\nhosts: files dns\n',
  );
  await addBusybox(tree, await unpack('busybox-static', work));
  if (name === 'node') await addNode(tree, work);
}

async function addBusybox(tree: string, from: string): Promise<void> {
  const binary = join(tree, 'bin/busybox');
  const source = (await exists(join(from, 'bin/busybox'))) ? 'bin/busybox' : 'usr/bin/busybox';
  await copyFile(join(from, source), binary);
  await chmod(binary, 0o755);
  const applets = (await run(binary, ['--list'])).trim().split('\n');
  for (const applet of applets)
    if (applet !== 'busybox') await symlink('busybox', join(tree, 'bin', applet));
}

/** Node's own binary, with the shared objects of Debian that `ldd` names, and certificates. */
async function addNode(tree: string, work: string): Promise<void> {
  const target = join(tree, 'usr/local/bin/node');
  await copyFile(nodePackage().binary, target);
  await chmod(target, 0o755);
  for (const name of ['libc6', 'libstdc++6', 'libgcc-s1']) {
    const from = await unpack(name, work);
    for (const dir of ['lib', 'lib64', 'usr/lib', 'usr/lib64'])
      await copyLibraries(join(from, dir), join(tree, dir));
  }
  const certificates = join(
    await unpack('ca-certificates', work),
    'usr/share/ca-certificates/mozilla',
  );
  const files = (await readdir(certificates)).filter((file) => file.endsWith('.crt')).sort();
  const bundle = await Promise.all(files.map((file) => readFile(join(certificates, file), 'utf8')));
  await mkdir(join(tree, 'etc/ssl/certs'), { recursive: true });
  await writeFile(join(tree, 'etc/ssl/certs/ca-certificates.crt'), bundle.join(''));
}

/** Shared objects and the loader; not the character sets, audit modules and texts that come with them. */
async function copyLibraries(from: string, to: string): Promise<void> {
  const wanted =
    /^(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|nss_(dns|files)|stdc\+\+|gcc_s))(-[\d.]+)?\.so(\.[\d.]+)?$/;
  for (const entry of await readdir(from, { withFileTypes: true, recursive: true }).catch(
    () => [],
  )) {
    if (entry.isDirectory() || !wanted.test(entry.name)) continue;
    const source = join(entry.parentPath, entry.name);
    const target = join(to, source.slice(from.length));
    await mkdir(dirname(target), { recursive: true });
    await cp(source, target, { verbatimSymlinks: true });
  }
}

/** Downloads a Debian package and unpacks it without installing; where its files are. */
async function unpack(name: string, work: string): Promise<string> {
  const dir = join(work, name);
  const tree = join(dir, 'tree');
  if (await exists(tree)) return tree;
  await mkdir(dir, { recursive: true });
  // As root, apt would download as a user of its own, who cannot write here.
  await run('apt-get', ['--quiet', '-o', 'APT::Sandbox::User=root', 'download', name], {
    cwd: dir,
  }).catch((error: unknown) => {
    throw new Error(
      `Cannot download the Debian package ${name}; run "apt-get update" first. ${String(error)}`,
    );
  });
  const [archive] = (await readdir(dir)).filter((file) => file.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt-get download left no package of ${name}`);
  await run('dpkg', ['-x', join(dir, archive), tree]);
  return tree;
}

function nodePackage(): { binary: string; version: string } {
  const file = createRequire(import.meta.url).resolve('node/package.json');
  const { version } = createRequire(import.meta.url)('node/package.json') as { version: string };
  return { binary: join(dirname(file), 'bin/node'), version };
}

const exists = (file: string): Promise<boolean> =>
  readFile(file).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code === 'EISDIR',
  );
