import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FarSide } from '../testing/fake-streams.ts';
import { Workbench, type Person } from '../testing/harness.ts';
import { AtTerminal } from '../testing/pty.ts';
import { World } from '../testing/world.ts';

// The bundle as a program of its own, against the real WebSocket protocol.

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
  world.app('hello').knowInstances('i00000000abc1');
  Object.assign(world.app('hello').instanceList[0] ?? {}, { state: 'READY', goneAt: null });
});
afterEach(() => world.server.stop());

const remote = () => world.server.platform.remote;
const exec = (...args: string[]) => ['exec', '--app', 'hello', ...args];
const sh = (script: string) => ['--', 'sh', '-c', script];

describe('exec', () => {
  it('keeps the streams apart and ends with the exit code of the command', async () => {
    const ran = await ann.run(exec(...sh('echo out; echo err >&2; exit 7')));
    expect(ran).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' });
    expect(remote().asked).toEqual([
      {
        tenant: 'demo',
        app: 'hello',
        instance: null,
        process: null,
        command: ['sh', '-c', 'echo out; echo err >&2; exit 7'],
        stdin: false,
        terminal: null,
      },
    ]);
    expect((await ann.run(exec('--json', ...sh('echo exact')))).stdout).toBe('exact\n');
  });

  it('goes to the instance or process that is named', async () => {
    await ann.run(exec('--instance', 'i00000000a', ...sh('true')));
    await ann.run(exec('--process', 'web', ...sh('true')));
    expect(remote().asked).toMatchObject([
      { instance: 'i00000000abc1', process: null },
      { instance: null, process: 'web' },
    ]);
    expect((await ann.run(exec('--process', 'none', ...sh('true')))).code).toBe(6);
    expect((await ann.run(exec('--instance', 'iz', ...sh('true')))).code).toBe(5);
  });

  it('passes on all of what is piped in, and gives back all of it', async () => {
    const text = randomBytes(3 * 1024 * 1024).toString('base64');
    const { stdout, code } = await ann.run(exec('-i', '--', 'cat'), { stdin: text });
    const digest = (value: string) => createHash('sha256').update(value).digest('hex');
    expect([code, digest(stdout)]).toEqual([0, digest(text)]);
    // Without -i nothing is read: the command sees no end of input of ours.
    const silent = await ann.run(exec(...sh('echo done')), { stdin: 'ignored' });
    expect(silent.stdout).toBe('done\n');
    expect(remote().streams.opened.at(-1)?.heard).toEqual([]);
  });

  it('wants a command, or a terminal for a shell', async () => {
    const none = await ann.run(exec());
    expect([none.code, none.stderr]).toEqual([2, expect.stringContaining('no command given')]);
    const pipe = await ann.run(exec('-it'));
    expect([pipe.code, pipe.stderr.split('\n')[0]]).toEqual([
      2,
      'error: -t needs a terminal, and the standard input is none',
    ]);
    expect(remote().asked).toEqual([]);
  });

  it('says what the far side could not do', async () => {
    const missing = await ann.run(exec('--', 'no-such-program'));
    expect([missing.code, missing.stdout]).toEqual([8, '']);
    expect(missing.stderr).toMatch(/^error: no-such-program: .*ENOENT/);
    const viewer = await world.signedIn('vic@example.com');
    expect((await viewer.run(exec(...sh('true')))).code).toBe(4);
  });

  it('says that the connection was lost, and never connects again', async () => {
    remote().streams.script = (far) => {
      far.tell({ kind: 'started' });
      far.data('half');
      far.socket.once('pong', () => far.socket.terminate());
      far.socket.ping();
    };
    const { code, stdout, stderr } = await ann.run(exec(...sh('true')));
    expect([code, stdout]).toEqual([9, 'half']);
    expect(stderr).toContain('was lost');
    expect(remote().streams.opened).toHaveLength(1);
  });

  it('says when a ticket is refused, no socket passes, or it would go out in the clear', async () => {
    const { streams } = remote();
    streams.script = (far) => far.socket.close(4401, 'The right to this stream has ended');
    const ended = await ann.run(exec(...sh('true')));
    expect([ended.code, ended.stderr]).toEqual([
      3,
      expect.stringContaining('The right to this stream has ended'),
    ]);
    world.server.sockets = false;
    const proxied = await ann.run(exec(...sh('true')));
    expect([proxied.code, proxied.stderr]).toEqual([9, expect.stringContaining('HTTP 404')]);
    streams.url = 'ws://192.0.2.1:4000/streams';
    const clear = await ann.run(exec(...sh('true')));
    expect([clear.code, clear.stderr]).toEqual([2, expect.stringContaining('in the clear')]);
    expect(clear.stderr).not.toMatch(/[A-Za-z0-9_-]{43}/);
  });

  it('goes to the replica that gave the ticket, where there are several', async () => {
    remote().streams.url = '/streams?replica=2';
    expect((await ann.run(exec(...sh('exit 3')))).code).toBe(3);
    expect(world.server.streamUrls).toEqual(['/streams?replica=2']);
  });

  it('gives a Ctrl-C to the command, whose end is ours', async () => {
    const script = 'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 0.05; done';
    const { code, stdout } = await ann.run(exec(...sh(script)), {
      onOutput: ({ stdout: text }, child) => {
        if (text === 'ready\n') child.kill('SIGINT');
      },
    });
    expect([code, stdout]).toEqual([3, 'ready\ncaught\n']);
  });
});

describe('exec with a terminal', () => {
  /** The far side of an interactive command: says what it gets, ends at `q`. */
  function echo(far: FarSide): void {
    far.tell({ kind: 'started' });
    far.data('ready> ');
    far.onControl = (control) => far.data(`[${JSON.stringify(control)}]`);
    far.onData = (bytes) => {
      far.data(`<${bytes.toString('hex')}>`);
      if (bytes.includes('q')) far.tell({ kind: 'exit', code: 5 });
    };
  }
  const after = 'echo "code=$?"; stty -a | tr "\\n" " "; echo; echo over';
  const ordinary = /code=(\d+)[^]* icanon [^]* echo [^]*over/;

  it('is raw while it lasts, has its size, and is as before afterwards', async () => {
    remote().streams.script = echo;
    const go = join(ann.home, 'go');
    const at = new AtTerminal(
      ann,
      `stty cols 101 rows 33; (while [ ! -e "$GO" ]; do sleep 0.05; done; stty cols 133 rows 50) < /dev/tty & $BULKHEAD exec -it --app hello; ${after}`,
      { GO: go },
    );
    await at.see(/ready> /);
    expect(remote().asked).toMatchObject([
      {
        command: ['/bin/sh'],
        stdin: true,
        terminal: { term: 'xterm', columns: 101, rows: 33 },
      },
    ]);
    // Each key by itself, with none of the line discipline's doing: Ctrl-C, Ctrl-D, Ctrl-Z, Ctrl-P.
    at.press('a\u0003\u0004\u001a\u0010\u0011');
    await at.see(/<61[^]*03[^]*04[^]*1a[^]*10[^]*11>/);
    await writeFile(go, '');
    await at.see(/\[\{"kind":"resize","size":\{"columns":133,"rows":50\}\}\]/);
    at.press('q');
    expect((await at.see(ordinary))[1]).toBe('5');
    await at.ended;
  });

  it.each([
    ['the connection is lost', '9', (far: FarSide) => far.socket.terminate()],
    [
      'the server refuses it',
      '4',
      (far: FarSide) => far.tell({ kind: 'failure', code: 'FORBIDDEN', message: 'no more' }),
    ],
    [
      'it is told what nobody understands',
      '9',
      (far: FarSide) => far.socket.send(Buffer.from([2, 1, 2, 3])),
    ],
  ])('is as before when %s', async (_how, code, end) => {
    remote().streams.script = echo;
    const at = new AtTerminal(ann, `$BULKHEAD exec -it --app hello -- sh; ${after}`);
    await at.see(/ready> /);
    const far = remote().streams.opened.at(-1);
    if (far) end(far);
    expect((await at.see(ordinary))[1]).toBe(code);
    await at.ended;
  });

  it.each([
    ['TERM', '130'],
    ['HUP', '129'],
  ])('is as before when SIG%s comes', async (signal, code) => {
    remote().streams.script = echo;
    const at = new AtTerminal(
      ann,
      `sh -c 'echo "pid=$$"; exec $BULKHEAD exec -it --app hello'; ${after}`,
    );
    const pid = Number((await at.see(/pid=(\d+)/))[1]);
    await at.see(/ready> /);
    process.kill(pid, `SIG${signal}`);
    expect((await at.see(ordinary))[1]).toBe(code);
    await at.ended;
  });
});
