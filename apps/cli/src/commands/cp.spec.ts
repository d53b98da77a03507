import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pack, type Header } from 'tar-stream';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { World } from '../testing/world.ts';

let workbench: Workbench;
let world: World;
let ann: Person;
/** The files of the instance, and those here. */
let far: string;
let here: string;

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
  far = mkdtempSync(join(workbench.directory, 'far-'));
  here = mkdtempSync(join(workbench.directory, 'here-'));
  world.server.platform.remote.streams.root = far;
});
afterEach(() => world.server.stop());

const cp = (source: string, target: string, stdin?: string) =>
  ann.run(['cp', '--app', 'hello', source, target], {
    cwd: here,
    ...(stdin === undefined ? {} : { stdin }),
  });
const tree = (root: string) => readdirSync(root, { recursive: true, encoding: 'utf8' }).toSorted();

function fill(root: string): void {
  mkdirSync(join(root, 'www/css'), { recursive: true });
  writeFileSync(join(root, 'www/index.html'), 'hello');
  writeFileSync(join(root, 'www/run.sh'), '#!/bin/sh');
  writeFileSync(join(root, 'www/css/@a.css'), 'a');
  chmodSync(join(root, 'www/run.sh'), 0o770);
  chmodSync(join(root, 'www/css'), 0o500);
  symlinkSync('index.html', join(root, 'www/start'));
}
const whole = ['css', 'css/@a.css', 'index.html', 'run.sh', 'start'];

describe('cp', () => {
  it('brings a directory in and out, with its permissions', async () => {
    fill(here);
    expect(await cp('www', 'i00000000a:/srv')).toMatchObject({ code: 0, stdout: '' });
    expect(tree(join(far, 'srv'))).toEqual(whole);
    expect(statSync(join(far, 'srv/run.sh')).mode & 0o7777).toBe(0o770);
    expect(readlinkSync(join(far, 'srv/start'))).toBe('index.html');

    expect((await cp('i00000000abc1:/srv', 'back')).code).toBe(0);
    expect(tree(join(here, 'back'))).toEqual(whole);
    expect(statSync(join(here, 'back/run.sh')).mode & 0o7777).toBe(0o770);
    expect(readFileSync(join(here, 'back/css/@a.css'), 'utf8')).toBe('a');

    // Into what is there now; and what is in it, into it.
    expect((await cp('i00000000abc1:srv/', 'back')).code).toBe(0);
    expect(tree(join(here, 'back/srv'))).toEqual(whole);
    expect((await cp('www/.', 'i00000000abc1:/srv')).code).toBe(0);
    expect(tree(join(far, 'srv'))).toEqual(whole);
    expect((await cp('www', 'i00000000abc1:/srv')).code).toBe(0);
    expect(tree(join(far, 'srv/www'))).toEqual(whole);
  });

  it('brings a file in and out, under another name too', async () => {
    writeFileSync(join(here, 'a.txt'), 'one');
    mkdirSync(join(far, 'data'));
    expect((await cp('a.txt', 'i00000000abc1:/data')).code).toBe(0);
    expect((await cp('a.txt', 'i00000000abc1:/data/b.txt')).code).toBe(0);
    expect(tree(join(far, 'data'))).toEqual(['a.txt', 'b.txt']);
    writeFileSync(join(far, 'data/b.txt'), 'longer than before');
    expect((await cp('i00000000abc1:/data/b.txt', 'a.txt')).code).toBe(0);
    expect(readFileSync(join(here, 'a.txt'), 'utf8')).toBe('longer than before');
    // Owners are ours here and root there.
    expect(statSync(join(here, 'a.txt')).uid).toBe(process.getuid?.());
  });

  it('says what does not fit or is not there', async () => {
    fill(here);
    writeFileSync(join(far, 'file'), '');
    const refusals = await Promise.all([
      cp('www', 'i00000000abc1:/file'),
      cp('www/index.html', 'i00000000abc1:/nowhere/'),
      cp('www/index.html', 'i00000000abc1:/nowhere/deep'),
      cp('nothing', 'i00000000abc1:/'),
      cp('i00000000abc1:/nothing', '.'),
      cp('www', 'elsewhere'),
      cp('i00000000abc1:/a', 'i00000000abc1:/b'),
      cp('www', 'inone:/'),
    ]);
    expect(
      refusals.map(({ code, stderr }) => `${String(code)} ${stderr.split('\n')[0] ?? ''}`),
    ).toEqual([
      '8 error: /file is a file: a directory does not fit over it',
      '8 error: there is no directory /nowhere/',
      '5 error: There is no /nowhere in the instance.',
      '5 error: there is no nothing here',
      '5 error: There is no /nothing in the instance.',
      '2 error: one of the two must be INSTANCE:PATH, the other a path here',
      '2 error: one of the two must be INSTANCE:PATH, the other a path here',
      '5 error: hello has no instance "inone"',
    ]);
    expect(tree(here)).toEqual(['www', ...whole.map((path) => `www/${path}`)]);
  });

  it('passes on archives', async () => {
    fill(far);
    const { stdout: out } = await promisify(execFile)(
      'bash',
      [
        '-c',
        '"$0" "$1" cp --app hello i00000000abc1:/www - | tar -t | sort',
        process.execPath,
        workbench.bundle,
      ],
      { env: ann.environment() },
    );
    expect(out.trim().split('\n')).toEqual([
      'www/',
      'www/css/',
      'www/css/@a.css',
      'www/index.html',
      'www/run.sh',
      'www/start',
    ]);
    mkdirSync(join(far, 'in'));
    const archive = execFileSync('tar', ['-c', '-C', join(far, 'www'), 'index.html']).toString();
    expect((await cp('-', 'i00000000abc1:/in', archive)).code).toBe(0);
    expect(tree(join(far, 'in'))).toEqual(['index.html']);
  });

  it('unpacks nothing outside of the target, whatever the far side sends', async () => {
    const outside = mkdtempSync(join(workbench.directory, 'outside-'));
    writeFileSync(join(outside, 'kept'), 'mine');
    const entries: [Partial<Header> & { name: string }, string][] = [
      [{ name: 'data/', type: 'directory', mode: 0o755 }, ''],
      [{ name: 'data/fine', mode: 0o6755 }, 'fine'],
      [{ name: 'other/file' }, 'x'],
      [{ name: '../escaped' }, 'x'],
      [{ name: 'data/../../escaped' }, 'x'],
      [{ name: join(outside, 'absolute') }, 'x'],
      [{ name: 'data/absolute', type: 'symlink', linkname: outside }, ''],
      [
        { name: 'data/up', type: 'symlink', linkname: `../../${outside.split('/').at(-1) ?? ''}` },
        '',
      ],
      [{ name: 'data/absolute/planted' }, 'x'],
      [{ name: 'data/inside', type: 'symlink', linkname: 'fine' }, ''],
      [{ name: 'data/hard', type: 'link', linkname: join(outside, 'kept') }, ''],
      [{ name: 'data/hard2', type: 'link', linkname: 'data/fine' }, ''],
      [{ name: 'data/device', type: 'character-device', devmajor: 1, devminor: 3 }, ''],
      [{ name: 'data/pipe', type: 'fifo' }, ''],
    ];
    world.server.platform.remote.streams.script = (side) => {
      const archive = pack();
      for (const [header, body] of entries) archive.entry(header, body);
      archive.finalize();
      void (async () => {
        for await (const bytes of archive) side.data(bytes as Buffer);
        side.tell({ kind: 'exit', code: 0 });
      })();
    };
    mkdirSync(join(here, 'target'));
    const { code, stderr } = await cp('i00000000abc1:/data', 'target');
    expect(code).toBe(1);
    expect(stderr).toContain(`data/absolute is a link to ${outside}, which is outside of the copy`);
    const made = tree(join(here, 'target'));
    for (const path of made)
      expect(lstatSync(join(here, 'target', path)).isSymbolicLink()).toBe(path === 'data/inside');
    expect(made).toEqual(
      expect.arrayContaining(['data', 'data/fine', 'data/hard2', 'data/inside']),
    );
    expect(made).not.toContain('data/device');
    expect(made).not.toContain('data/pipe');
    expect(statSync(join(here, 'target/data/fine')).mode & 0o7777).toBe(0o755);
    expect(tree(outside)).toEqual(['kept']);
    expect(tree(here).filter((path) => !path.startsWith('target'))).toEqual([]);
    expect(existsSync(join(workbench.directory, 'escaped'))).toBe(false);
  });

  it('does not follow a link that lies in the target already', async () => {
    const outside = mkdtempSync(join(workbench.directory, 'outside-'));
    mkdirSync(join(far, 'data/sub'), { recursive: true });
    writeFileSync(join(far, 'data/sub/file'), 'x');
    mkdirSync(join(here, 'data'));
    symlinkSync(outside, join(here, 'data/sub'));
    await cp('i00000000abc1:/data', '.');
    expect(tree(outside)).toEqual([]);
  });
});
