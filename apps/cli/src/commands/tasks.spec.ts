import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { AtTerminal } from '../testing/pty.ts';
import { World } from '../testing/world.ts';

let workbench: Workbench;
let world: World;
let ann: Person;

beforeAll(() => {
  workbench = new Workbench();
});
afterAll(() => workbench.remove());
beforeEach(async () => {
  world = await World.start(workbench);
  ann = await world.signedIn();
  await ann.run(['apps', 'create', 'hello']);
  await ann.run(['deploy', '--app', 'hello', '--image', 'registry.test/hello:1']);
});
afterEach(() => world.server.stop());

const remote = () => world.server.platform.remote;
const tasks = () => world.app('hello').instanceList.filter(({ oneOff }) => oneOff);
const run = (...args: string[]) => ['run', '--app', 'hello', ...args];

describe('run', () => {
  it('gives output and exit code, and says nothing else into a pipe', async () => {
    const ran = await ann.run(run('--', 'sh', '-c', 'echo out; echo err >&2; exit 3'));
    expect(ran).toEqual({ code: 3, stdout: 'out\n', stderr: 'err\n' });
    expect((await ann.run(run('-i', '--', 'cat'), { stdin: 'rows' })).stdout).toBe('rows');
  });

  it('asks for what its options say', async () => {
    const options = '-d --process worker --release v3 --memory 1g --cpu 0.5 --timeout 2h'.split(
      ' ',
    );
    const { code, stdout, stderr } = await ann.run(run(...options, '--', './report.sh'));
    expect(remote().asked.at(-1)).toEqual({
      tenant: 'demo',
      app: 'hello',
      command: ['./report.sh'],
      process: 'worker',
      release: 3,
      memoryMiB: 1024,
      cpuMillis: 500,
      terminal: null,
      stdin: false,
      timeoutSeconds: 7200,
      detach: true,
    });
    const id = tasks()[0]?.id ?? '';
    expect([code, stdout]).toEqual([0, `${id}\n`]);
    for (const command of ['tasks attach', 'logs -f --instance', 'tasks stop'])
      expect(stderr).toContain(`bulkhead ${command} ${id} --app hello`);
    const { stdout: record } = await ann.run(run('-d', '--json', '--', 'x'));
    expect(JSON.parse(record)).toMatchObject({ oneOff: true });
    for (const wrong of [
      ['--memory', '0.3m'],
      ['--cpu', 'much'],
      ['--release', 'new'],
      ['-it', '-d'],
    ])
      expect((await ann.run(run(...wrong, '--', 'x'))).code).toBe(2);
    expect((await ann.run(run())).code).toBe(2);
  });

  it('goes on when the connection is lost, and says how to come back', async () => {
    remote().streams.script = (far) => {
      far.tell({ kind: 'started' });
      far.socket.terminate();
    };
    const { code, stderr } = await ann.run(run('--', 'x'));
    expect(code).toBe(9);
    expect(stderr).toContain(`The task runs on:\n  bulkhead tasks attach ${tasks()[0]?.id ?? ''}`);
  });

  it('says why a task cannot start', async () => {
    remote().streams.script = (far) =>
      far.tell({ kind: 'failure', code: 'CONFLICT', message: 'no node has 9000 MiB' });
    expect(await ann.run(run('--', 'x'))).toMatchObject({
      code: 6,
      stderr: 'error: no node has 9000 MiB\n',
    });
  });

  it('is stopped by a Ctrl-C, before it runs and while it runs', async () => {
    const at = new AtTerminal(ann, '$BULKHEAD run --app hello -- x; echo "code=$?"');
    remote().streams.script = () => undefined;
    await at.see(/pulling the image/);
    at.press('\u0003');
    expect((await at.see(/stopped before it ran[^]*code=(\d+)/))[1]).toBe('130');
    await at.ended;
    expect(tasks()).toMatchObject([{ desired: 'GONE' }]);

    const before = remote().streams.opened.length;
    remote().streams.script = (far) => far.tell({ kind: 'started' });
    const running = new AtTerminal(ann, '$BULKHEAD run --app hello -- x; echo "code=$?"');
    await expect.poll(() => remote().streams.opened.length, { timeout: 20_000 }).toBe(before + 1);
    const far = remote().streams.opened.at(-1);
    far?.data('working');
    await running.see(/working/);
    running.press('\u0003');
    await expect.poll(() => tasks()[1]?.desired, { timeout: 20_000 }).toBe('GONE');
    far?.tell({ kind: 'exit', code: 143 });
    expect((await running.see(/code=(\d+)/))[1]).toBe('143');
    await running.ended;
  });

  it('lets go with Ctrl-P Ctrl-Q, and takes every other key', async () => {
    remote().streams.script = (far) => {
      far.tell({ kind: 'started' });
      far.data('ready> ');
      far.onData = (bytes) => far.data(`<${bytes.toString('hex')}>`);
    };
    const at = new AtTerminal(ann, '$BULKHEAD run -it --app hello -- sh; echo "code=$?"');
    await at.see(/ready> /);
    at.press('a\u0010b');
    await at.see(/<61[^]*10[^]*62>/);
    at.press('\u0010\u0011');
    expect((await at.see(/it runs on:[^]*code=(\d+)/))[1]).toBe('0');
    await at.ended;
    expect(tasks()).toMatchObject([{ desired: 'RUNNING' }]);
  });
});

describe('tasks', () => {
  it('are listed, attached to and stopped', async () => {
    expect((await ann.run(['tasks', '--app', 'hello'])).stderr).toBe('No tasks of hello.\n');
    await ann.run(run('-d', '--', 'x'));
    const id = tasks()[0]?.id ?? '';
    const { stdout } = await ann.run(['tasks', '--app', 'hello']);
    expect(stdout).toMatch(new RegExp(`^INSTANCE .*\\n${id} +v1 +pulling`));
    expect((await ann.json<object[]>(['tasks', 'list', '--app', 'hello'])).length).toBe(1);
    const attached = await ann.run(['tasks', 'attach', id, '--app', 'hello']);
    expect(attached).toEqual({ code: 4, stdout: 'from its start on\n', stderr: '' });
    expect((await ann.run(['tasks', 'stop', id, '--app', 'hello'])).stdout).toBe(`${id}\n`);
    expect(tasks()).toMatchObject([{ desired: 'GONE' }]);
    expect((await ann.run(['tasks', 'stop', 'i0nothing0000', '--app', 'hello'])).code).toBe(5);
  });
});
