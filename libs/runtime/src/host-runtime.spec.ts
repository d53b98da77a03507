import { readFileSync, statSync } from 'node:fs';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from './runtime.ts';
import {
  containerSpec,
  removeState,
  runToEnd,
  testOptions,
  traces,
  until,
} from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { LayerFiles, TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let image: TestImage;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  await runtime.reconcile();
  image = await registry.push('test/base', [baseLayer]);
  await runtime.ensureImage(image);
});

afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

const sh = (script: string): string[] => ['sh', '-c', script];

describe('the life of a container', () => {
  it('starts, is found, stops and is removed', async () => {
    const spec = containerSpec(image, ['sleep', '1000']);
    const started = await runtime.start(spec);
    expect(started).toMatchObject({
      id: spec.id,
      tenantId: 'tenant-a',
      state: 'running',
      exit: null,
    });
    expect(await runtime.find(spec.id)).toEqual(started);
    expect((await runtime.list()).map((c) => c.id)).toEqual([spec.id]);

    await runtime.stop(spec.id, 0);
    expect(await runtime.find(spec.id)).toMatchObject({
      state: 'stopped',
      pid: null,
      exit: { signal: 'SIGKILL', oomKilled: false },
    });
    await runtime.stop(spec.id, 1);
    await runtime.remove(spec.id);
    expect(await runtime.find(spec.id)).toBeNull();
    await runtime.remove(spec.id);
  });

  it('starts one container however often and however concurrently it is asked', async () => {
    const spec = containerSpec(image, ['sleep', '1000']);
    const [a, b] = await Promise.all([runtime.start(spec), runtime.start(spec)]);
    expect(a).toEqual(b);
    expect(await runtime.start(spec)).toEqual(a);
    expect(await runtime.list()).toHaveLength(1);
    await runtime.remove(spec.id);
  });

  it('starts 20 at once, each with an address of its own', async () => {
    const specs = Array.from({ length: 20 }, () => containerSpec(image, ['sleep', '1000']));
    const started = await Promise.all(specs.map((spec) => runtime.start(spec)));
    expect(new Set(started.map((c) => c.address)).size).toBe(20);
    await Promise.all(specs.map((spec) => runtime.remove(spec.id)));
    expect(await runtime.list()).toEqual([]);
  });

  it('tells exit code, signal and the end of a container that ended before anyone waited', async () => {
    expect((await runToEnd(runtime, containerSpec(image, sh('exit 7')))).exit).toMatchObject({
      exitCode: 7,
      signal: null,
    });
    const spec = containerSpec(image, sh('kill -9 $$; sleep 9'));
    await runtime.start({ ...spec, command: sh('sleep 0.01; exit 3') });
    await until('it stopped', async () => (await runtime.find(spec.id))?.state === 'stopped');
    expect(await runtime.waitExit(spec.id, AbortSignal.timeout(1000))).toMatchObject({
      exitCode: 3,
    });
    await runtime.remove(spec.id);
  });

  it('sends the stop signal of the image first and lets the process end by itself', async () => {
    const config = { ...image.config, stopSignal: 'SIGUSR1' };
    const spec = containerSpec(
      { ...image, config },
      sh('trap "echo bye; exit 5" USR1; echo up; while :; do sleep 0.01; done'),
    );
    await runtime.start(spec);
    await until(
      'it is up',
      async () => (await runtime.readLogs(spec.id, null, 10)).lines.length > 0,
    );
    await runtime.stop(spec.id, 20);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped', exit: { exitCode: 5 } });
    await runtime.remove(spec.id);
  });

  it('starts again in place: same address, new writable layer, one log', async () => {
    const spec = containerSpec(image, sh('ls /mark; touch /mark; echo run'));
    const first = await runtime.start(spec);
    await runtime.waitExit(spec.id, AbortSignal.timeout(10_000));
    const { cursor } = await runtime.readLogs(spec.id, null, 100);
    const second = await runtime.start(spec);
    expect(second.address).toBe(first.address);
    await runtime.waitExit(spec.id, AbortSignal.timeout(10_000));
    const all = (await runtime.readLogs(spec.id, null, 100)).lines.map((l) => l.text);
    const missing = 'ls: /mark: No such file or directory';
    expect(all.toSorted()).toEqual([missing, missing, 'run', 'run']);
    expect((await runtime.readLogs(spec.id, cursor, 100)).lines).toHaveLength(2);
    await runtime.remove(spec.id);
  });

  it('tells an end for want of memory apart', async () => {
    const eater = sh('exec perl -e \'my @a; push @a, "x" x 1e6 while 1\'');
    const { exit } = await runToEnd(runtime, containerSpec(image, eater));
    expect(exit).toMatchObject({ signal: 'SIGKILL', oomKilled: true });
  });

  it('notices the end of a container whose conmon was killed', async () => {
    const spec = containerSpec(image, ['sleep', '1000']);
    const { pid } = await runtime.start(spec);
    const conmon = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    process.kill(conmon, 'SIGKILL');
    await until('conmon ended', () => !isThere(conmon));
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'running' });
    process.kill(pid ?? 0, 'SIGKILL');
    expect(await runtime.waitExit(spec.id, AbortSignal.timeout(10_000))).toMatchObject({
      exitCode: null,
    });
    await runtime.remove(spec.id);
  });

  it('gives up waiting when told to', async () => {
    const spec = containerSpec(image, ['sleep', '1000']);
    await runtime.start(spec);
    const abort = new AbortController();
    const waiting = runtime.waitExit(spec.id, abort.signal);
    abort.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await runtime.remove(spec.id);
  });
});

describe('what cannot start', () => {
  it.each([
    ['no command', null, 'no-command'],
    ['a command that the image does not have', ['/no/such'], 'command-not-found'],
    ['a command not on PATH', ['nosuch'], 'command-not-found'],
    ['a file that is no program', ['/etc/passwd'], 'command-not-found'],
  ] as const)('%s', async (_what, command, reason) => {
    const spec = containerSpec(image, command === null ? null : [...command]);
    await expect(runtime.start(spec)).rejects.toMatchObject({ name: 'RuntimeError', reason });
    expect(await runtime.find(spec.id)).toBeNull();
  });

  it('a user that the image does not know', async () => {
    const spec = containerSpec({ ...image, config: { ...image.config, user: 'nobody-here' } }, [
      'id',
    ]);
    await expect(runtime.start(spec)).rejects.toMatchObject({ reason: 'start-failed' });
  });

  it('an image that was never pulled for this repository', async () => {
    const spec = containerSpec({ ...image, repository: `${registry.host}/other/app` }, ['id']);
    await expect(runtime.start(spec)).rejects.toMatchObject({ reason: 'image-not-found' });
  });

  it('keeps the last end and the log when a restart fails', async () => {
    const spec = containerSpec(image, sh('echo once; exit 4'));
    await runtime.start(spec);
    await runtime.waitExit(spec.id, AbortSignal.timeout(10_000));
    await expect(runtime.start({ ...spec, command: ['nosuch'] })).rejects.toMatchObject({
      reason: 'command-not-found',
    });
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped', exit: { exitCode: 4 } });
    expect((await runtime.readLogs(spec.id, null, 10)).lines.map((l) => l.text)).toEqual(['once']);
    await runtime.remove(spec.id);
  });
});

describe('images', () => {
  it('says when there is none', async () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    await expect(
      runtime.ensureImage({ repository: `${registry.host}/test/base`, digest }),
    ).rejects.toMatchObject({ reason: 'image-not-found' });
    await expect(
      runtime.ensureImage({ repository: `${registry.host}/test/none`, digest }),
    ).rejects.toMatchObject({ reason: 'image-not-found' });
    await expect(runtime.ensureImage({ repository: '--help', digest })).rejects.toMatchObject({
      reason: 'image-not-found',
    });
  });

  it('says when the registry cannot be reached, without paths of the host', async () => {
    const wanted = runtime.ensureImage({ repository: '127.0.0.1:9/a/b', digest: image.digest });
    const error = (await wanted.catch((e: unknown) => e)) as Error;
    expect(error).toMatchObject({ reason: 'registry-unreachable' });
    expect(error.message).not.toContain(options.stateDir);
  });

  it('pulls once for many who ask, and lists what is there', async () => {
    const other = await registry.push('test/two', [baseLayer, { 'etc/two': '2\n' }]);
    await Promise.all([1, 2, 3].map(() => runtime.ensureImage(other)));
    expect(await runtime.listImages()).toEqual(
      expect.arrayContaining([other.digest, image.digest]),
    );
    expect((await runToEnd(runtime, containerSpec(other, ['cat', '/etc/two']))).out).toEqual(['2']);
  });

  it('hides what an upper layer deleted', async () => {
    const layers = [
      baseLayer,
      { 'etc/app/a': '', 'etc/app/b': '' },
      { 'etc/.wh.group': '', 'etc/app/.wh..wh..opq': '', 'etc/app/c': '' },
    ];
    const deleted = await registry.push('test/deleted', layers);
    await runtime.ensureImage(deleted);
    const { out, err } = await runToEnd(
      runtime,
      containerSpec(deleted, sh('ls /etc/app; cat /etc/group')),
    );
    expect([...out, ...err]).toEqual([
      'c',
      "cat: can't open '/etc/group': No such file or directory",
    ]);
  });

  it('runs an image of 60 layers, the upper ones hiding the lower', async () => {
    const layers = Array.from({ length: 59 }, (_, n) => ({
      'etc/layer': `${n}\n`,
      [`etc/layer-${n}`]: '',
    }));
    const many = await registry.push('test/many', [baseLayer, ...layers]);
    await runtime.ensureImage(many);
    expect(
      (await runToEnd(runtime, containerSpec(many, sh('cat /etc/layer; ls /etc | grep -c layer-'))))
        .out,
    ).toEqual(['58', '59']);
  });
});

describe('inside', () => {
  it('another user can use the root file system, whatever umask the agent has', async () => {
    const umask = process.umask(0o077);
    try {
      const config = { ...image.config, user: '1234', workingDir: '/new/dir' };
      const { out } = await runToEnd(
        runtime,
        containerSpec(
          { ...image, config },
          sh('cat /etc/hostname /etc/passwd | wc -l; stat -c %a / /new'),
        ),
      );
      expect(out).toEqual(['3', '755', '755']);
    } finally {
      process.umask(umask);
    }
  });

  it('root is nobody on the host, and layers are shared unchanged', async () => {
    const spec = containerSpec(
      image,
      sh('touch /mine; echo x >> /etc/group; stat -c %u /mine /bin/busybox; sleep 1000'),
    );
    const { pid } = await runtime.start(spec);
    await until(
      'it wrote',
      async () => (await runtime.readLogs(spec.id, null, 10)).lines.length === 2,
    );
    expect((await runtime.readLogs(spec.id, null, 10)).lines.map((l) => l.text)).toEqual([
      '0',
      '0',
    ]);
    const base = Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    expect(base).toBeGreaterThan(options.idBase);
    const upper = `${options.stateDir}/layers/${spec.id}/upper`;
    expect(statSync(`${upper}/mine`).uid).toBe(base);
    await runtime.remove(spec.id);
    expect(
      (await runToEnd(runtime, containerSpec(image, ['grep', '-c', 'x:', '/etc/group']))).out,
    ).toEqual(['3']);
  });

  it('limits stand in the cgroup', async () => {
    const given = { cpuMillis: 250, cpuCapMillis: 500, memoryMiB: 48, pids: 33, diskMiB: 64 };
    const resources = { ...defaultResources, ...given };
    const spec = containerSpec(image, ['sleep', '1000'], { resources });
    await runtime.start(spec);
    const read = (v1: string, v2: string): string => {
      for (const file of [
        `/sys/fs/cgroup/${v1.split('.')[0]}/${options.cgroup}/tenant-a/${spec.id}/${v1}`,
        `/sys/fs/cgroup/${options.cgroup}/tenant-a/${spec.id}/${v2}`,
      ]) {
        try {
          return readFileSync(file, 'utf8').trim();
        } catch {
          // The other layout.
        }
      }
      return 'missing';
    };
    expect(read('memory.limit_in_bytes', 'memory.max')).toBe(String(48 * 1024 * 1024));
    expect(read('pids.max', 'pids.max')).toBe('33');
    expect(read('cpu.cfs_quota_us', 'cpu.max')).toMatch(/^50000( 100000)?$/);
    await runtime.remove(spec.id);
  });

  it('has the user of the image, its groups, directory and environment', async () => {
    const config = {
      ...image.config,
      user: 'app',
      workingDir: '/made/for/it',
      env: ['A=image', 'B=image'],
    };
    const spec = containerSpec(
      { ...image, config },
      sh('id; pwd; echo $A $B $HOME $HOSTNAME; hostname; grep Cap /proc/self/status'),
      { env: { B: 'spec' } },
    );
    const { out } = await runToEnd(runtime, spec);
    expect(out.slice(0, 4)).toEqual([
      'uid=1000(app) gid=1001(app) groups=1001(app),1500(extra)',
      '/made/for/it',
      `image spec /home/app ${spec.id}`,
      spec.id,
    ]);
    expect(out.slice(4).map((line) => Number.parseInt(line.split('\t')[1] ?? '', 16))).toEqual([
      0, 0, 0, 0, 0,
    ]);
  });

  it('root holds the eight capabilities and no way to more', async () => {
    const { out } = await runToEnd(
      runtime,
      containerSpec(image, ['grep', '-E', 'Cap|NoNew|Seccomp:', '/proc/self/status']),
    );
    expect(out.map((line) => line.replace('\t', ' '))).toEqual([
      'CapInh: 0000000000000000',
      'CapPrm: 00000000000004fb',
      'CapEff: 00000000000004fb',
      'CapBnd: 00000000000004fb',
      'CapAmb: 0000000000000000',
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ]);
  });

  it('does not follow links of the image out of it', async () => {
    const evil = await registry.push('test/evil', [
      baseLayer,
      {
        'etc/hosts': { link: '/../../../../tmp/bulkhead-evil-hosts' },
        'etc/passwd': { link: '../../../../../etc/shadow' },
      },
    ]);
    await runtime.ensureImage(evil);
    const { out } = await runToEnd(
      runtime,
      containerSpec(evil, sh('cat /etc/hosts; ls -l /etc/hosts')),
    );
    expect(out[0]).toBe('127.0.0.1\tlocalhost');
    expect(() => statSync('/tmp/bulkhead-evil-hosts')).toThrow();
  });

  it('gives every image hosts, hostname and resolv.conf, whatever it has in their place', async () => {
    const planted: Record<string, LayerFiles> = {
      'through proc': { 'etc/hosts': { link: '../proc/1/root/etc/motd' } },
      'own environment': { 'etc/hosts': { link: '/proc/self/environ' } },
      'a device': { 'etc/hosts': { link: '/dev/null' } },
      'each other': { 'etc/hosts': { link: 'resolv.conf' } },
      itself: { 'etc/hosts': { link: 'hosts' } },
      nothing: { 'etc/other': 'x' },
    };
    for (const [index, layer] of Object.values(planted).entries()) {
      const evil = await registry.push(`test/etc-${index}`, [baseLayer, layer]);
      await runtime.ensureImage(evil);
      const spec = containerSpec(evil, sh('cat /etc/hosts /etc/hostname; ls -l /etc/hosts'));
      const { out } = await runToEnd(runtime, spec);
      expect(out[0]).toBe('127.0.0.1\tlocalhost');
      expect(out).toContain(spec.id);
      expect(out.at(-1)).not.toContain('->');
    }
    for (const [what, layer] of Object.entries({
      'a directory /etc/hosts': { 'etc/hosts/in/the/way': 'x' },
    } satisfies Record<string, LayerFiles>)) {
      const odd = await registry.push('test/etc-odd', [baseLayer, layer]);
      await runtime.ensureImage(odd);
      await expect(runtime.start(containerSpec(odd, ['id']))).rejects.toMatchObject({
        reason: 'start-failed',
        message: expect.stringContaining(what) as unknown,
      });
    }
  });

  it('has no message queues: the kernel has 800 KB of them for all containers together', async () => {
    const script = 'ls /dev/mqueue; touch /dev/mqueue/x; ls /dev';
    const { out, err } = await runToEnd(runtime, containerSpec(image, sh(script)));
    expect(err[0]).toMatch(/mqueue: No such file/);
    expect(out.sort()).toEqual(
      'busybox core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero'.split(
        ' ',
      ),
    );
  });

  it('cannot touch the devices, kernel settings and hardware of the host', async () => {
    const before = statSync('/dev/null');
    const script = `chmod 600 /dev/zero; chmod 600 /dev/null; mknod /tmp-dev b 1 1; echo 1 > /proc/sys/kernel/panic;
      wc -c < /proc/kallsyms; ls /sys/kernel /sys/firmware | wc -l; mount -t tmpfs x /root; cat`;
    const { out, err } = await runToEnd(runtime, containerSpec(image, sh(script)));
    expect(statSync('/dev/null')).toMatchObject({ uid: before.uid, mode: before.mode });
    expect(out[0]).toBe('0');
    expect(err.join('\n')).toMatch(
      /chmod: \/dev\/zero: Operation not permitted[\s\S]*mknod[\s\S]*Read-only file system[\s\S]*mount/,
    );
  });
});

const isThere = (pid: number): boolean => {
  try {
    return /^State:\s+[^ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};
