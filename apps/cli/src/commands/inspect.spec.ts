import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { AtTerminal } from '../testing/pty.ts';
import { World } from '../testing/world.ts';
import { bytes, parseMiB, parseMillis } from './sizes.ts';

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
const top = (...args: string[]) => ['top', 'hello', ...args];

describe('top', () => {
  it('shows one reading with --once', async () => {
    const { stdout } = await ann.run(top('--once'));
    expect(stdout.split('\n').map((line) => line.trim().split(/  +/))).toEqual([
      'PROCESS|INSTANCE|CPU|THROTTLED|MEMORY|DISK|READ|WRITTEN|RECEIVED|SENT|PIDS'.split('|'),
      'web|i00000000abc1|95m / 100m|25%|64.0 MiB / 128 MiB|-|0 B/s|1.5 KiB/s|-|1.9 MiB/s|3 / 256'.split(
        '|',
      ),
      [''],
    ]);
    expect(await ann.json(top('--once'))).toMatchObject({
      instance: 'i00000000abc1',
      cpuMillis: 95,
    });
  });

  it('goes on, a line per reading in a pipe, over lost connections', async () => {
    let dropped = false;
    const { code, stdout } = await ann.run(top('--interval', '1'), {
      onOutput: ({ stdout: text }, child) => {
        const lines = text.split('\n').length;
        if (lines > 4 && !dropped) {
          dropped = true;
          world.server.dropSockets();
        }
        if (lines > 12 && world.server.socketsOpened > 1) child.kill('SIGINT');
      },
    });
    expect(code).toBe(130);
    const lines = stdout.trim().split('\n');
    expect(lines.filter((line) => line.startsWith('TIME'))).toHaveLength(1);
    for (const line of lines.slice(1)) expect(line).toMatch(/^12:00:00 +web +i00000000abc1 /);
  });

  it('is drawn again on a terminal, and leaves the cursor as it was', async () => {
    const at = new AtTerminal(ann, 'stty cols 200 rows 20; $BULKHEAD top hello; echo "code=$?"');
    await at.see(/PROCESS[^]*95m/);
    remote().readings = [{ cpuMillis: 7 }];
    await at.see(/7m \/ 100m/);
    at.press('\u0003');
    await at.see(/code=130/);
    expect(at.shown.lastIndexOf('\u001b[?25h')).toBeGreaterThan(
      at.shown.lastIndexOf('\u001b[?25l'),
    );
    await at.ended;
  });

  it('says that nothing runs', async () => {
    world.app('hello').instanceList = [];
    expect((await ann.run(top('--once'))).stderr).toBe('Nothing of hello runs.\n');
    expect((await ann.run(top('--interval', '0.1'))).code).toBe(2);
  });
});

describe('diff', () => {
  it('lists what was added, changed and deleted', async () => {
    remote().changes = [
      { change: 'ADDED', kind: 'FILE', path: '/tmp/a\u001b[2J' },
      { change: 'CHANGED', kind: 'DIRECTORY', path: '/tmp' },
      { change: 'DELETED', kind: 'FILE', path: '/etc/motd' },
    ];
    const { stdout } = await ann.run(['diff', 'i0000', '--app', 'hello']);
    expect(stdout).toBe('D /etc/motd\nC /tmp\nA /tmp/a\n');
    remote().truncated = true;
    expect((await ann.run(['diff', 'i0000', '--app', 'hello'])).stderr).toContain('there are more');
    expect(await ann.json(['diff', 'i0000', '--app', 'hello'])).toMatchObject({ truncated: true });
    remote().changes = [];
    remote().truncated = false;
    expect((await ann.run(['diff', 'i0000', '--app', 'hello'])).stderr).toBe('No changes.\n');
  });
});

it('sizes are read and written', () => {
  expect(['512', '512m', '1g', '1.5GiB'].map(parseMiB)).toEqual([512, 512, 1024, 1536]);
  expect(['500m', '0.5', '2'].map(parseMillis)).toEqual([500, 500, 2000]);
  for (const wrong of ['', '0', 'x', '0.3m', '-1']) expect(() => parseMiB(wrong)).toThrow();
  expect([0, 999, 1023, 1536, 128 * 1024 ** 2, 5e12].map(bytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 KiB',
    '1.5 KiB',
    '128 MiB',
    '4.5 TiB',
  ]);
});
