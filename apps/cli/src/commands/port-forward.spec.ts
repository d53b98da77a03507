import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { World } from '../testing/world.ts';
import { parsePorts } from './port-forward.ts';

let workbench: Workbench;
let world: World;
let ann: Person;
/** What listens in the instance: says all it heard, backwards, when the other side has ended. */
let inside: Server;

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
  inside = createServer({ allowHalfOpen: true }, (socket) => {
    void text(socket).then((heard) => socket.end([...heard].reverse().join('')));
  });
  await new Promise<void>((resolve) => inside.listen(0, '127.0.0.1', resolve));
});
afterEach(async () => {
  inside.close();
  await world.server.stop();
});

const portOf = (server: Server) => (server.address() as AddressInfo).port;

async function ask(port: number, question: string): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.end(question);
  return text(socket);
}

/** Runs until `work` has used the ports that it listens on. */
async function forwarding(args: string[], work: (ports: number[]) => Promise<void>) {
  let begun: Promise<void> | null = null;
  const wanted = args.filter((arg) => parsePorts(arg) !== null).length;
  const ran = await ann.run(['port-forward', '--app', 'hello', ...args], {
    onOutput: ({ stdout }, child) => {
      const found = [...stdout.matchAll(/^Forwarding 127\.0\.0\.1:(\d+) -> .*\n/gm)];
      if (found.length < wanted) return;
      begun ??= work(found.map((match) => Number(match[1]))).finally(() => child.kill('SIGINT'));
    },
  });
  await begun;
  return ran;
}

describe('port-forward', () => {
  it('carries each connection on its own, each way to its end', async () => {
    const remote = portOf(inside);
    const long = 'x'.repeat(1_000_000);
    const { code, stdout, stderr } = await forwarding(
      ['i00000', `0:${String(remote)}`, `:${String(remote)}`, '-v'],
      async ([one = 0, two = 0]) => {
        expect(await Promise.all([ask(one, 'abc'), ask(two, 'xyz'), ask(one, `${long}!`)])).toEqual(
          ['cba', 'zyx', `!${long}`],
        );
      },
    );
    expect(code).toBe(130);
    expect(stdout).toContain(`-> i00000000abc1:${String(remote)}\n`);
    expect(stderr.match(/: opened/g)).toHaveLength(3);
    // One ticket for each port, not for each connection.
    expect(world.server.platform.remote.asked).toHaveLength(2);
  });

  it('tells what is wrong with one connection, and goes on', async () => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const nobody = portOf(closed);
    closed.close();
    await once(closed, 'close');
    const { stderr } = await forwarding(
      [`0:${String(nobody)}`, `0:${String(portOf(inside))}`],
      async ([one = 0, two = 0]) => {
        await ask(one, 'abc').catch(() => '');
        expect(await ask(two, 'abc')).toBe('cba');
      },
    );
    expect(stderr).toContain('nothing listens there');
  });

  it('says what it cannot listen on or reach', async () => {
    const taken = String(portOf(inside));
    const forward = (...args: string[]) => ann.run(['port-forward', '--app', 'hello', ...args]);
    const busy = await forward(`${taken}:80`);
    expect([busy.code, busy.stderr]).toEqual([
      1,
      expect.stringContaining('something listens there'),
    ]);
    expect((await forward()).code).toBe(2);
    expect((await forward('i00000')).code).toBe(2);
    expect((await forward('80:99999')).code).toBe(2);
    expect((await forward('80:8080', 'web')).code).toBe(2);
    expect((await forward('i0nothing0000', '8080')).code).toBe(5);
  });
});

it.each([
  ['8080:80', { local: 8080, remote: 80 }],
  ['8080', { local: 8080, remote: 8080 }],
  [':80', { local: 0, remote: 80 }],
  ['0:80', { local: 0, remote: 80 }],
  ['i3k9', null],
  ['i00000', null],
  ['web:80', null],
])('%s', (words, pair) => {
  expect(parsePorts(words)).toEqual(pair);
});
