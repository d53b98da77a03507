import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { World } from '../testing/world.ts';
import { wantsInstance } from './complete-instances.ts';

const valued = new Set(['--app', '-a', '--instance', '--process', '-p']);

it.each([
  ['exec --instance i', true],
  ['exec -it --app hello --instance ', true],
  ['diff ', true],
  ['diff --app hello i3', true],
  ['diff i3k9 ', false],
  ['diff --app ', false],
  ['tasks ', false],
  ['tasks stop ', true],
  ['port-forward -v i', true],
  ['exec -- --instance ', false],
  ['exec ', false],
  ['diff -', false],
])('%j', (line, wanted) => {
  expect(wantsInstance(line.split(' '), valued)).toBe(wanted);
});

describe('complete', () => {
  let workbench: Workbench;
  let world: World;
  let ann: Person;
  beforeAll(async () => {
    workbench = new Workbench();
    world = await World.start(workbench);
    ann = await world.signedIn();
    await ann.run(['apps', 'create', 'hello']);
    world.app('hello').knowInstances('i00000000abc1');
  });
  afterAll(async () => {
    await world.server.stop();
    workbench.remove();
  });
  const complete = (...words: string[]) => ann.run(['complete', '--', ...words]);

  it('offers instances of the app that is named', async () => {
    const { code, stdout } = await complete('diff', '--app', 'hello', '');
    expect([code, stdout.split('\n')[0]]).toEqual([0, 'i00000000abc1\tweb, gone']);
    expect((await complete('cp', '--app', 'hello', '')).stdout).toContain('i00000000abc1:\t');
  });

  it('is silent where there is nothing to say, or nobody to ask', async () => {
    for (const words of [
      ['diff', ''],
      ['diff', '--app', 'none', ''],
      ['apps', '--app', 'hello', ''],
    ]) {
      const { stdout, stderr } = await complete(...words);
      expect(stdout + stderr).not.toMatch(/i0000|error/);
    }
    world.server.answer = (response) => response.writeHead(500).end();
    expect(await complete('diff', '--app', 'hello', '')).toMatchObject({ code: 0, stderr: '' });
  });
});
