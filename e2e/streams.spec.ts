import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { extract, pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platform, type Platform } from './support/platform.ts';
import { Stream } from './support/streams.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

// Into running containers and out of them: client, API, agent and container are all real.
describe('streams', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let stranger: TenantFixture;
  let instance: string;

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    stranger = await TenantFixture.create(p.apiUrl);
    const image = await p.push(tenant, 'hello', 'hello:1');
    await tenant.createApp('shop');
    await tenant.succeeded(
      await tenant.deploy('shop', image, [
        { name: 'web', port: 8080, healthCheck: { kind: 'HTTP', path: '/healthz' } },
      ]),
    );
    instance = (await tenant.serving('shop'))[0]!.id;
  });
  afterAll(() => p.release());

  async function open(mutation: string, type: string, input: object, as = tenant) {
    const answer = await as.api.ask(
      `mutation ($input: ${type}!) { ${mutation}(input: $input) { ticket } }`,
      { input: { tenant: tenant.slug, app: 'shop', ...input } },
    );
    return Stream.open(as.api, answer[mutation].ticket);
  }
  const exec = (command: string[], more: object = {}) =>
    open('exec', 'ExecInput', { command, ...more });
  const run = async (input: object) => {
    const { runTask } = await tenant.api.ask(
      `mutation ($input: RunTaskInput!) { runTask(input: $input) { instance { id } stream { ticket } } }`,
      { input: { tenant: tenant.slug, app: 'shop', ...input } },
    );
    return runTask as { instance: { id: string }; stream: { ticket: string } | null };
  };

  test('a command has its own streams and exit code', async () => {
    const stream = await exec(['sh', '-c', 'cat; echo problem >&2; exit 42'], { stdin: true });
    stream.write('through and back');
    stream.say({ kind: 'end' });
    expect(await stream.over()).toMatchObject({
      ...{ out: 'through and back', err: 'problem\n', exit: 42 },
    });
    const absent = await (await exec(['/no/such'])).over();
    expect(absent.failure).toMatchObject({
      code: 'INVALID',
      message: 'The image has no such command.',
    });
  });

  test('a terminal has a size, follows it and carries signals', async () => {
    const stream = await exec(['sh'], { terminal: { term: 'xterm', columns: 90, rows: 30 } });
    stream.write('stty size\n');
    await until('its size is shown', () => /30 90/.test(stream.out));
    stream.say({ kind: 'resize', size: { columns: 44, rows: 11 } });
    stream.write('stty size\n');
    await until('its new size is shown', () => /11 44/.test(stream.out));
    stream.write('echo be""gun; sleep 1000\n');
    await until('it sleeps', () => stream.out.includes('begun'));
    stream.write('\x03');
    stream.write('exit 5\n');
    expect((await stream.over()).exit).toBe(5);
  });

  test('what is left alone ends at the node', async () => {
    const stream = await exec(['sleep', '4242']);
    await until('it runs', () => stream.started);
    const processes = async () =>
      (await (await exec(['ps'])).over()).out.match(/sleep 4242/g) ?? [];
    expect(await processes()).toHaveLength(1);
    stream.leave();
    await until('it is gone', async () => (await processes()).length === 0);
  });

  test('16 MB go through a command unharmed', async () => {
    const block = Buffer.alloc(256 * 1024, 'abcdefghijklmnop');
    const hash = createHash('sha256');
    const stream = await exec(['cat'], { stdin: true });
    for (let index = 0; index < 64; index++) {
      stream.write(block);
      hash.update(block);
    }
    stream.say({ kind: 'end' });
    const { bytes, exit } = await stream.over();
    expect(exit).toBe(0);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(hash.digest('hex'));
  });

  test('files go in, under another name too, and come out', async () => {
    const copyIn = async (path: string, name: string, content: string) => {
      const archive = pack();
      archive.entry({ name }, content);
      archive.finalize();
      const stream = await open('copyToInstance', 'CopyInput', { instance, path });
      for await (const part of archive) stream.write(part as Buffer);
      stream.say({ kind: 'end' });
      return stream.over();
    };
    const copyOut = async (path: string) => {
      const stream = await (await open('copyFromInstance', 'CopyInput', { instance, path })).over();
      if (stream.failure) throw new Error(`${stream.failure.code}: ${stream.failure.message}`);
      const found: Record<string, string> = {};
      const reader = extract();
      reader.on('entry', (header, content, next) => {
        void text(content).then((all) => {
          found[header.name] = all;
          next();
        });
      });
      await new Promise<void>((resolve, reject) => {
        reader.on('finish', () => resolve()).on('error', reject);
        reader.end(stream.bytes);
      });
      return found;
    };
    expect((await copyIn('/tmp', 'note', 'first')).exit).toBe(0);
    expect((await copyIn('/tmp/renamed', 'note', 'second')).exit).toBe(0);
    expect(await copyOut('/tmp/note')).toEqual({ note: 'first' });
    expect(await copyOut('/tmp/renamed')).toEqual({ renamed: 'second' });
    await expect(copyOut('/tmp/nothing')).rejects.toThrow('NOT_FOUND: There is no /tmp/nothing');
    expect((await copyIn('/none/there', 'note', 'x')).failure).toMatchObject({ code: 'NOT_FOUND' });

    const { instanceChanges } = await tenant.api.ask(
      `query ($tenant: String!, $instance: ID!) {
        instanceChanges(tenant: $tenant, app: "shop", instance: $instance) { changes { change path } } }`,
      { tenant: tenant.slug, instance },
    );
    expect(instanceChanges.changes).toContainEqual({ change: 'ADDED', path: '/tmp/renamed' });
  });

  test('a port is reached by as many connections as one likes', async () => {
    const { forwardPort } = await tenant.api.ask(
      `mutation ($input: ForwardPortInput!) { forwardPort(input: $input) { ticket } }`,
      { input: { tenant: tenant.slug, app: 'shop', instance, port: 8080 } },
    );
    for (let connection = 0; connection < 2; connection++) {
      const stream = await Stream.open(tenant.api, forwardPort.ticket);
      stream.write('GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
      expect((await stream.over()).out).toMatch(/^HTTP\/1.1 200/);
    }
    const closed = await (
      await open('forwardPort', 'ForwardPortInput', { instance, port: 81 })
    ).over();
    expect(closed.failure).toMatchObject({
      message: 'Nothing in the instance listens on port 81.',
    });
  });

  test('use is measured', async () => {
    const { usage } = await tenant.api.ask(
      `query ($tenant: String!) { usage(tenant: $tenant, app: "shop") {
        instance process cpuMillis memoryBytes memoryLimitBytes pids } }`,
      { tenant: tenant.slug },
    );
    expect(usage).toMatchObject([{ instance, process: 'web' }]);
    expect(usage[0].cpuMillis).toBeGreaterThanOrEqual(0);
    expect(usage[0].memoryBytes).toBeGreaterThan(1_000_000);
    expect(usage[0].pids).toBeGreaterThan(0);
  });

  test('a task runs once, gives its output and its exit, and then its quota back', async () => {
    const before = await tenant.quota();
    const task = await run({ command: ['sh', '-c', 'echo once; echo more >&2; exit 9'] });
    expect((await tenant.quota())['instances']).toBe(before['instances']! + 1);
    const stream = await (await Stream.open(tenant.api, task.stream!.ticket)).over();
    expect(stream).toMatchObject({ exit: 9, err: 'more\n' });
    expect(stream.out).toContain('once\n');
    await until(
      'its quota is back',
      async () => ((await tenant.quota())['instances'] === before['instances'] ? true : null),
      40_000,
    );
    // The agent keeps its record until the control plane has taken the order back.
    await until('nothing of it is left', async () =>
      (await p.remainsOf(task.instance.id)).length === 0 ? true : null,
    );
    expect(await tenant.logs('shop')).toContain('once');
  });

  test('a task with a terminal waits for its client and ends with it', async () => {
    const terminal = { term: 'xterm', columns: 80, rows: 24 };
    const task = await run({ command: ['sh'], terminal });
    const stream = await Stream.open(tenant.api, task.stream!.ticket);
    await until('it runs', () => stream.started, 30_000);
    stream.write('hostname; exit 4\n');
    expect((await stream.over()).exit).toBe(4);
    expect(stream.out).toContain(task.instance.id);

    const left = await run({ command: ['sh'], terminal });
    const dropped = await Stream.open(tenant.api, left.stream!.ticket);
    await until('it runs', () => dropped.started, 30_000);
    dropped.leave();
    await until(
      'nothing is left of it',
      async () => ((await p.remainsOf(left.instance.id)).length === 0 ? true : null),
      40_000,
    );
  });

  test('another tenant gets nothing, and all of it is in the audit log', async () => {
    for (const [mutation, type, input] of [
      ['exec', 'ExecInput', { instance, command: ['sh'] }],
      ['copyFromInstance', 'CopyInput', { instance, path: '/' }],
      ['forwardPort', 'ForwardPortInput', { instance, port: 8080 }],
    ] as const)
      await expect(open(mutation, type, input, stranger)).rejects.toMatchObject({
        code: 'NOT_FOUND',
      });
    const { tenant: seen } = await tenant.api.ask(
      `query ($slug: String!) { tenant(slug: $slug) { auditLog(first: 100) { nodes { action } } } }`,
      { slug: tenant.slug },
    );
    const actions = new Set(seen.auditLog.nodes.map(({ action }: { action: string }) => action));
    for (const action of ['instance.exec', 'instance.copy', 'instance.forward', 'task.run'])
      expect(actions).toContain(action);
  });

  test('an agent that is killed ends its streams and leaves nothing; the next one serves', async () => {
    const stream = await exec(['sleep', '4343']);
    await until('it runs', () => stream.started);
    await p.kill('agent');
    expect((await stream.over()).failure).toMatchObject({ code: 'UNAVAILABLE' });
    const shown = await until('the next agent serves', async () => {
      const next = await exec(['ps']).catch(() => null);
      return next && (await next.over()).exit === 0 ? next.out : null;
    });
    expect(shown).not.toContain('4343');
    expect((await tenant.serving('shop'))[0]!.id).toBe(instance);
  });

  test('a certificate is renewed: the API is restarted, once, and streams go on', async () => {
    expect(await p.renewLostCertificate()).toEqual(['api']);
    const said = await until('a command runs', async () => {
      const stream = await exec(['echo', 'again']);
      return (await stream.over()).out;
    });
    expect(said).toBe('again\n');
  });
});
