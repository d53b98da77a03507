/**
 * nats-server 2.10. Debian 12 packages 2.9, which is at its end of life; Debian 13's package runs on
 * Debian 12 (it needs libc 2.34 only). It is fetched with a private apt configuration, checked
 * against Debian's archive keys and unpacked beside our own files: the machine's own package
 * sources and installed packages are not touched.
 */
import {
  copyFile,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { Step } from '../bootstrap/steps.mjs';

const suite = 'trixie';
const defaultMirror = 'http://deb.debian.org/debian';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Where the binary is once fetched: a cache of the clone. */
export const natsServerBinary = (root: string) =>
  join(root, '.bulkhead/cache/nats-server-2.10/nats-server');

export async function ensureNatsServer(step: Step, root: string): Promise<string> {
  const binary = natsServerBinary(root);
  if (await exists(binary)) return binary;
  const cache = join(root, '.bulkhead/cache');
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'fetch-'));
  try {
    await download(step, work, await machineMirror()).catch(async () => {
      step.log(`not there; trying ${defaultMirror}`);
      await download(step, work, defaultMirror);
    });
    const packages = (await readdir(work)).filter((name) => name.endsWith('.deb'));
    const [first] = packages;
    if (first === undefined) throw new Error('apt-get download ended well but left no package');
    await step.run('dpkg', ['-x', join(work, first), join(work, 'tree')]);
    const version = await step.run(join(work, 'tree/usr/sbin/nats-server'), ['--version']);
    if (!version.includes(' v2.1'))
      throw new Error(`expected nats-server 2.10 or newer, got ${version.trim()}`);
    // Under its final name only when complete: an interrupted fetch is fetched again.
    const ready = join(work, 'ready');
    await mkdir(ready);
    await copyFile(join(work, 'tree/usr/sbin/nats-server'), join(ready, 'nats-server'));
    await rm(join(binary, '..'), { recursive: true, force: true });
    await rename(ready, join(binary, '..'));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return binary;
}

/** The mirror that this machine's own package sources use, which may be a local one. */
async function machineMirror(): Promise<string> {
  const dir = '/etc/apt/sources.list.d';
  const files = [
    '/etc/apt/sources.list',
    ...(await readdir(dir).catch(() => [])).map((name) => join(dir, name)),
  ];
  for (const file of files.filter((name) => /\.(list|sources)$/.test(name))) {
    const text = await readFile(file, 'utf8').catch(() => '');
    const uri = /^(?:deb |URIs:)[^#\n]*?(https?:\/\/\S+\/debian\/?)(?=\s|$)/m.exec(text)?.[1];
    if (uri !== undefined) return uri;
  }
  return defaultMirror;
}

async function download(step: Step, work: string, mirror: string): Promise<void> {
  const sources = join(work, `${suite}.sources`);
  await writeFile(
    sources,
    `Types: deb\nURIs: ${mirror}\nSuites: ${suite}\nComponents: main\nSigned-By: ${keyring}\n`,
  );
  for (const dir of ['lists/partial', 'apt-cache/archives/partial'])
    await mkdir(join(work, dir), { recursive: true });
  // Everything apt reads about sources or writes goes to `work`. Its sandbox user could not write there.
  const options = [
    `Dir::Etc::sourcelist=${sources}`,
    'Dir::Etc::sourceparts=/dev/null',
    'Dir::Etc::preferences=/dev/null',
    'Dir::Etc::preferencesparts=/dev/null',
    `Dir::State::lists=${join(work, 'lists')}`,
    `Dir::Cache=${join(work, 'apt-cache')}`,
    'APT::Sandbox::User=root',
    'Acquire::Languages=none',
    'Acquire::Retries=3',
  ].flatMap((option) => ['-o', option]);
  await step.run('apt-get', ['-q', ...options, 'update'], { cwd: work });
  await step.run('apt-get', ['-q', ...options, 'download', 'nats-server'], { cwd: work });
}

const exists = (file: string) =>
  stat(file).then(
    () => true,
    () => false,
  );
