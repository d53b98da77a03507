/** Commands, files, connections and numbers of running containers. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import { extract, pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { detectCgroups } from './cgroups.ts';
import { endEntriesOf } from './enter.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, Exec, RuntimeOptions } from './runtime.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let image: TestImage;
let id: string;
const size = { columns: 100, rows: 40 };
const sh = (script: string): string[] => ['sh', '-c', script];

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  await runtime.reconcile();
  image = await registry.push('test/inside', [
    { ...baseLayer, 'data/kept': 'as it was\n', 'data/gone': 'x', 'data/deep/one': '1' },
  ]);
  await runtime.ensureImage(image);
  const spec = containerSpec(image, sh('exec sleep 1000'), { env: { GREETING: 'hello' } });
  id = spec.id;
  await runtime.start(spec);
});

afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

const exec = (command: string[], more: { stdin?: boolean } = {}) =>
  runtime.exec(id, { command, stdin: more.stdin ?? false, terminal: null });
const onTerminal = (command: string[]) =>
  runtime.exec(id, { command, stdin: true, terminal: { term: 'xterm-256color', size } });
const outputOf = async (running: Exec) => {
  const [out, err, code] = await Promise.all([
    text(running.stdout),
    running.stderr ? text(running.stderr) : '',
    running.end,
  ]);
  return { out, err, code };
};
/** Reads a terminal until `pattern` is shown. */
function shows(running: Exec): (pattern: RegExp) => Promise<string> {
  let shown = '';
  running.stdout.on('data', (part: Buffer) => (shown += part.toString()));
  return async (pattern) => {
    await until(String(pattern), () => pattern.test(shown));
    return shown;
  };
}
const execsLeft = () =>
  detectCgroups()
    .children(`${options.cgroup}/tenant-a/${id}`)
    .filter((name) => name.startsWith('exec-'));

describe('exec', () => {
  it('has the container’s variables, and its own streams and exit code', async () => {
    const run = await exec(sh('echo $GREETING; echo oh >&2; exit 7'));
    expect(await outputOf(run)).toEqual({ out: 'hello\n', err: 'oh\n', code: 7 });
    expect(execsLeft()).toEqual([]);
  });

  it('runs many at a time, and says how each ended', async () => {
    const runs = await Promise.all([0, 1, 2, 3].map((code) => exec(sh(`exit ${code}`))));
    const ends = await Promise.all(runs.map(outputOf));
    expect(ends.map(({ code }) => code)).toEqual([0, 1, 2, 3]);
    const killed = await outputOf(await exec(sh('kill -9 $$')));
    expect(killed.code).toBe(137);
  });

  it('carries 50 MB from its input to its output, no faster than they are taken', async () => {
    const run = await exec(['cat'], { stdin: true });
    const block = Buffer.alloc(64 * 1024, 'x');
    const input = Readable.from(
      (function* () {
        for (let index = 0; index < 800; index++) yield block;
      })(),
    );
    let taken = 0;
    run.stdout.on('data', (part: Buffer) => (taken += part.length));
    if (!run.stdin) throw new Error('no input');
    await pipeline(input, run.stdin);
    expect(await run.end).toBe(0);
    await until('all came', () => taken === 800 * block.length);
  });

  it('gives a terminal of the size asked for, that follows and that signals', async () => {
    const run = await onTerminal(
      sh(
        'stty size 2>/dev/null || echo no; tty; echo $TERM; trap "echo caught; exit 5" INT; while :; do sleep 0.05; done',
      ),
    );
    const seen = shows(run);
    expect(await seen(/xterm-256color/)).toContain('/dev/');
    run.resize({ columns: 55, rows: 22 });
    run.stdin?.write('\x03');
    await seen(/caught/);
    expect(await run.end).toBe(5);
    const sized = await onTerminal(['/dev/busybox', 'stty', 'size']);
    expect(await shows(sized)(/\d+ \d+/)).toContain('40 100');
    await sized.end;
  });

  it('refuses what the image does not have, in words without paths of the host', async () => {
    const run = await exec(['/no/such']);
    await expect(outputOf(run)).rejects.toMatchObject({
      reason: 'exec-refused',
      message: 'The image has no such command.',
    });
    const typed = await onTerminal(['/no/such']);
    await shows(typed)(/not found/);
    expect(await typed.end).toBe(127);
    expect(execsLeft()).toEqual([]);
    await expect(
      runtime.exec('i9999', { command: ['true'], stdin: false, terminal: null }),
    ).rejects.toMatchObject({ reason: 'not-running' });
  });

  it('ends with all it started when nobody listens any more', async () => {
    const stubborn = await exec(sh('trap "" HUP; sleep 4321 & while :; do sleep 1; done'));
    stubborn.stdout.resume();
    await until('it runs', () => execsLeft().length === 1);
    stubborn.hangUp();
    expect(await stubborn.end).toBe(137);
    const polite = await onTerminal(sh('trap "exit 3" HUP; while :; do sleep 0.05; done'));
    polite.stdout.resume();
    polite.hangUp();
    await polite.end;
    expect(execsLeft()).toEqual([]);
  });

  it('stays within the container’s limits and walls', async () => {
    const own = readFileSync(`/proc/${(await runtime.find(id))?.pid}/status`, 'utf8');
    const { out } = await outputOf(await exec(sh('cat /proc/self/status')));
    for (const name of ['CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp']) {
      const line = (status: string) => new RegExp(`^${name}:.*$`, 'm').exec(status)?.[0];
      expect(line(out)).toBe(line(own));
    }
    const hog = await outputOf(await exec(sh('x=$(head -c 200000000 /dev/zero | tr "\\0" x)')));
    expect(hog.code).toBe(137);
  });

  it('has open what is its own and nothing of the platform’s, as everything inside', async () => {
    const listed = sh('exec 7</etc/passwd; ls /proc/self/fd; ls /proc/1/fd');
    // What the command opened itself (7, and the directory that it lists) shows that more would be seen.
    const open = ['0', '1', '2', '3', '7', '0', '1', '2'];
    expect((await outputOf(await exec(listed))).out.trim().split(/\s+/)).toEqual(open);
    const typed = await onTerminal(listed);
    const shown = await shows(typed)(/7[^]*0[^]*1[^]*2/);
    expect(shown.trim().split(/\s+/)).toEqual(open);
    await typed.end;
  });

  it('of an agent that was killed leaves nothing behind', async () => {
    const run = await exec(['sleep', '4321']);
    run.end.catch(() => undefined);
    await until('it runs', () => execsLeft().length === 1);
    // What the next agent does first; this one's own ends with it.
    const record = JSON.parse(
      readFileSync(`${options.stateDir}/containers/${id}/record.json`, 'utf8'),
    ) as Parameters<typeof endEntriesOf>[1];
    const host = { cgroup: options.cgroup, cgroups: detectCgroups() } as unknown as Parameters<
      typeof endEntriesOf
    >[0];
    await endEntriesOf(host, record);
    expect(execsLeft()).toEqual([]);
    await run.end.catch(() => undefined);
  });
});

describe('copies', () => {
  const copyIn = async (path: string, files: Record<string, string>, to = id) => {
    const archive = pack();
    for (const [name, content] of Object.entries(files)) archive.entry({ name }, content);
    archive.finalize();
    const copy = await runtime.copyIn(to, path);
    await Promise.all([pipeline(archive, copy.archive).catch(() => undefined), copy.end]);
  };
  const copyOut = async (path: string) => {
    const found: Record<string, string> = {};
    const copy = await runtime.copyOut(id, path);
    const reader = extract();
    reader.on('entry', (header, stream, next) => {
      void text(stream).then((content) => {
        found[header.name] = `${header.type} ${content}`;
        next();
      });
    });
    await Promise.all([pipeline(copy.archive, reader), copy.end]);
    return found;
  };

  it('bring files and directories in and out, with ids of the container', async () => {
    await copyIn('/data', { 'new/one': 'first', two: 'second' });
    expect(await copyOut('/data/new')).toEqual({
      'new/': 'directory ',
      'new/one': 'file first',
    });
    expect(await copyOut('/data/two')).toEqual({ two: 'file second' });
    const { out } = await outputOf(await exec(sh('ls -ln /data/two; cat /data/new/one')));
    expect(out).toMatch(/ 0 +0 +.*two\nfirst/);
    expect(await runtime.isDirectory(id, '/data')).toBe(true);
    expect(await runtime.isDirectory(id, '/data/two')).toBe(false);
  });

  it('say what is not there, and what is no directory', async () => {
    await expect(copyOut('/data/nothing')).rejects.toMatchObject({
      reason: 'file-not-found',
      message: 'There is no /data/nothing in the instance.',
    });
    await expect(copyIn('/nowhere', { one: '1' })).rejects.toMatchObject({
      reason: 'file-not-found',
    });
  });

  it('never leave the container, whatever is planted in it or in the archive', async () => {
    const outside = mkdtempSync(`${tmpdir()}/bulkhead-outside-`);
    writeFileSync(`${outside}/secret`, 'of the host');
    await outputOf(
      await exec(
        sh(`rm -rf /trap; ln -s ${outside} /trap; ln -s ../../../../../../..${outside} /up`),
      ),
    );
    await expect(copyIn('/trap', { planted: 'x' })).rejects.toMatchObject({
      reason: 'file-not-found',
    });
    await expect(copyIn('/up', { planted: 'x' })).rejects.toMatchObject({
      reason: 'file-not-found',
    });
    await copyIn('/data', { [`../../../../../..${outside}/planted`]: 'x' }).catch(() => undefined);
    await expect(copyOut(`${outside}/secret`)).rejects.toMatchObject({ reason: 'file-not-found' });
    expect(spawnSync('ls', [outside], { encoding: 'utf8' }).stdout).toBe('secret\n');
    rmSync(outside, { recursive: true });
  });

  it('stop at the disk limit', async () => {
    const spec = containerSpec(image, sh('exec sleep 1000'));
    const small = { ...spec, resources: { ...spec.resources, diskMiB: 16 } };
    await runtime.start(small);
    const copy = await runtime.copyIn(spec.id, '/data');
    const archive = pack();
    archive.entry({ name: 'big' }, Buffer.alloc(40 * 1024 * 1024, 'x'));
    archive.finalize();
    await expect(
      Promise.all([pipeline(archive, copy.archive).catch(() => undefined), copy.end]),
    ).rejects.toMatchObject({ reason: 'out-of-disk' });
    await runtime.remove(spec.id);
  });
});

it('tells which files differ from the image, and nothing of its own', async () => {
  const spec = containerSpec(
    image,
    sh(
      'rm /data/gone; echo more >> /data/kept; mkdir /fresh; touch /fresh/a; rm -r /data/deep; mkdir /data/deep; touch /data/deep/two; exec sleep 1000',
    ),
  );
  await runtime.start(spec);
  let found: string[] = [];
  await until('all is done', async () => {
    found = [];
    for await (const { change, kind, path } of runtime.changes(spec.id))
      found.push(`${change} ${kind} ${path}`);
    return found.some((line) => line.endsWith('/data/deep/two'));
  });
  expect(found.sort()).toEqual([
    'added directory /fresh',
    'added file /data/deep/two',
    'added file /fresh/a',
    'changed directory /data',
    'changed directory /data/deep',
    'changed file /data/kept',
    'deleted file /data/gone',
  ]);
  await runtime.remove(spec.id);
});

it('counts what a container uses', async () => {
  const before = runtime.use(id);
  await outputOf(
    await exec(
      sh(
        'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/data/blob bs=1M count=2 2>/dev/null',
      ),
    ),
  );
  const after = runtime.use(id);
  expect(after?.cpuNanos).toBeGreaterThan((before?.cpuNanos ?? 0) + 10_000_000);
  expect(after?.pids).toBeGreaterThan(0);
  expect(after?.memoryBytes).toBeGreaterThan(0);
  expect(after?.disk?.limit).toBeGreaterThan(0);
  expect(runtime.use('i9999')).toBeNull();
});

it('connects to what listens inside, on loopback alone too', async () => {
  const server = await exec(['httpd', '-f', '-p', '127.0.0.1:7001', '-h', '/data']);
  let answer = '';
  await until('it answers', async () => {
    const socket = await runtime.connect(id, 7001).catch(() => null);
    if (!socket) return false;
    socket.end('GET /kept HTTP/1.0\r\n\r\n');
    answer = await text(socket);
    return true;
  });
  expect(answer).toContain('as it was');
  server.hangUp();
  await server.end;
  await expect(runtime.connect(id, 7002)).rejects.toMatchObject({ reason: 'port-refused' });
});

it('an idle container runs nothing of the image’s, takes commands and stops at once', async () => {
  const spec = containerSpec(image, ['/no/such'], { idle: true });
  await runtime.start(spec);
  const run = await runtime.exec(spec.id, { command: sh('exit 9'), stdin: false, terminal: null });
  expect((await outputOf(run)).code).toBe(9);
  await runtime.stop(spec.id, 5);
  expect((await runtime.find(spec.id))?.exit).toMatchObject({ exitCode: 0 });
  await runtime.remove(spec.id);
});
