import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { split } from 'shlex';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createProgram } from './program.ts';
import { FakeServer } from './testing/fake-server.ts';
import { Workbench, type Person } from './testing/harness.ts';
import { password, World } from './testing/world.ts';

const io = {
  streams: { stdout: process.stdout, stderr: process.stderr, stdin: process.stdin },
  env: {},
  cwd: '/',
  signal: new AbortController().signal,
};

let workbench: Workbench;
let world: World;
let ann: Person;

beforeAll(async () => {
  workbench = new Workbench();
  world = await World.start(workbench);
  ann = await world.signedIn();
});
afterAll(async () => {
  await world.server.stop();
  workbench.remove();
});

describe('help', () => {
  it('is as reviewed (vitest run apps/cli/src/main.spec.ts -u writes it anew)', async () => {
    const program = createProgram(io);
    const pages = (command: Command, path: string): string[] => [
      `$ ${path} --help\n\n${helpOf(command)}`,
      ...command
        .createHelp()
        .visibleCommands(command)
        .filter((sub) => sub.name() !== 'help')
        .flatMap((sub) => pages(sub, `${path} ${sub.name()}`)),
    ];
    await expect(pages(program, 'bulkhead').join('\n')).toMatchFileSnapshot('../help.golden.txt');
  });

  it('has examples for every command, of commands and options that exist', () => {
    const program = createProgram(io);
    for (const command of family(program)) {
      const [, text] = helpOf(command).split('\nExamples:\n');
      const lines = text?.trim().split('\n') ?? [];
      expect(lines, command.name()).not.toEqual([]);
      for (const line of lines) expect(unknownWords(program, line), line).toEqual([]);
    }
  });

  it('comes on stdout when asked for, and by itself', async () => {
    const bare = await ann.run([]);
    expect([bare.code, bare.stdout, bare.stderr]).toEqual([
      0,
      expect.stringContaining('Exit codes:'),
      '',
    ]);
    expect((await ann.run(['help', 'deploy'])).stdout).toContain('Usage: bulkhead deploy');
    expect((await ann.run(['--version'])).stdout).toBe('0.1.0\n');
    expect((await ann.run(['version'])).stdout).toMatch(/^bulkhead 0\.1\.0 \(Node v\d+/);
  });
});

function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part), getOutHelpWidth: () => 80 });
  command.outputHelp();
  return text;
}

/** A command and all below it that help shows. */
function family(command: Command): Command[] {
  const below = command.createHelp().visibleCommands(command);
  return [command, ...below.filter((one) => one.name() !== 'help').flatMap(family)];
}

/** `-it` is `-i` and `-t`. */
function optionsIn(word: string): string[] {
  if (/^-[a-z]+$/.test(word)) return [...word.slice(1)].map((letter) => `-${letter}`);
  return word.startsWith('--') ? [word] : [];
}

/** Commands and options of an example (`  $ bulkhead ...`) that do not exist. */
function unknownWords(program: Command, example: string): string[] {
  const [, name, ...words] = split(example);
  const unknown = name === 'bulkhead' ? [] : [String(name)];
  let command = program;
  const path = [program];
  for (const word of words) {
    // Another program's words follow.
    if (['|', '<', '>', '>>', '--'].includes(word)) break;
    const sub = command.commands.find((one) => one.name() === word);
    if (sub !== undefined) path.push((command = sub));
    else if (command === program) unknown.push(word);
    else if (
      !optionsIn(word).every((name) =>
        path.some((one) => one.options.some(({ short, long }) => short === name || long === name)),
      )
    )
      unknown.push(word);
  }
  return unknown;
}

describe('a wrong command line', () => {
  it.each([
    [['deploi'], "error: unknown command 'deploi'\n(Did you mean deploy?)\n"],
    [['apps', 'lsit'], "error: unknown command 'lsit'\n(Did you mean list?)\n"],
    [['help', 'nosuch'], expect.stringMatching(/^Usage: bulkhead /)],
    [['apps', '--nope'], "error: unknown option '--nope'\nSee `bulkhead help`.\n"],
    [['scale'], "error: missing required argument 'process=count'\nSee `bulkhead help`.\n"],
    [['logs', '-n', 'many'], expect.stringContaining('Not a whole number')],
    [['whoami', 'extra'], expect.stringContaining('too many arguments')],
  ])('%j', async (args, stderr) => {
    expect(await ann.run(args)).toEqual({ code: 2, stdout: '', stderr });
  });

  it('is JSON with --json', async () => {
    const { code, stderr } = await ann.run(['deploi', '--json']);
    expect([code, JSON.parse(stderr)]).toEqual([
      2,
      {
        error: {
          code: 'USAGE',
          message: "unknown command 'deploi'",
          hint: '(Did you mean deploy?)',
        },
      },
    ]);
  });
});

describe('a server in trouble', () => {
  it('that is down', async () => {
    const gone = await new FakeServer().start();
    const { url } = gone;
    await gone.stop();
    const { code, stderr } = await ann.run(['login', url, '--email', 'a@b.c', '--password-stdin'], {
      stdin: password,
    });
    expect([code, stderr]).toEqual([
      9,
      expect.stringMatching(
        /^error: cannot reach http:\/\/127.0.0.1:\d+: nothing listens there\n.*--server/,
      ),
    ]);
  });

  it.each([
    [
      'HTML',
      200,
      'text/html',
      '<html>',
      /does not answer like a Bulkhead API: HTTP 200, text\/html/,
      9,
    ],
    [
      'other JSON',
      200,
      'application/json',
      '{"hello":1}',
      /does not answer like a Bulkhead API/,
      9,
    ],
    ['a redirect', 302, 'text/plain', '', /a redirect to http:\/\/elsewhere/, 9],
    ['too busy', 503, 'text/html', '<h1>', /answers HTTP 503/, 9],
    ['401', 401, 'text/plain', 'no', /session has ended/, 3],
    [
      'its own fault',
      200,
      'application/json',
      '{"errors":[{"message":"boom"}]}',
      /the server failed: boom/,
      9,
    ],
    [
      'a later schema',
      200,
      'application/json',
      '{"errors":[{"message":"Cannot query field","extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}',
      /different versions/,
      8,
    ],
    ['null', 200, 'application/json', '{"data":null}', /without data/, 9],
  ])('that answers with %s', async (_name, status, type, body, message, code) => {
    world.server.answer = (response) => {
      response.writeHead(status, { 'content-type': type, location: 'http://elsewhere/' });
      response.end(body);
    };
    try {
      const ran = await ann.run(['whoami']);
      expect([ran.code, ran.stderr]).toEqual([code, expect.stringMatching(message)]);
    } finally {
      world.server.answer = null;
    }
  });

  it('that never answers can be interrupted', async () => {
    world.server.answer = () => undefined;
    try {
      const child = spawn(process.execPath, [workbench.bundle, 'whoami'], {
        env: ann.environment(),
        stdio: 'pipe',
      });
      const before = world.server.requests.length;
      await expect.poll(() => world.server.requests.length).toBeGreaterThan(before);
      child.kill('SIGINT');
      expect((await once(child, 'exit'))[0]).toBe(130);
    } finally {
      world.server.answer = null;
    }
  });
});

describe('completion', () => {
  it.each(['bash', 'zsh', 'fish'])('has a script for %s', async (shell) => {
    const { code, stdout } = await ann.run(['completion', shell]);
    expect([code, stdout]).toEqual([0, expect.stringContaining('bulkhead complete -- ')]);
    expect(stdout).not.toContain('eval');
  });

  it('works in bash, and runs nothing of what is being typed', async () => {
    const script = `
      bulkhead() { "$NODE" "$B" "$@"; }
      source <(bulkhead completion bash)
      try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bulkhead; echo "\${COMPREPLY[*]}"; }
      try bulkhead depl; try bulkhead config s; try bulkhead deploy --im; try bulkhead scale '$(touch pwned)' --tim`;
    const { stdout } = spawnSync('bash', ['-c', script], {
      cwd: ann.home,
      env: ann.environment({ NODE: process.execPath, B: workbench.bundle }),
      encoding: 'utf8',
    });
    expect(stdout).toBe('deploy deployments\nset\n--image\n--timeout\n');
    expect(existsSync(join(ann.home, 'pwned'))).toBe(false);
  });

  it('knows commands and options', async () => {
    expect((await ann.run(['complete', '--', 'de'])).stdout).toMatch(/^deploy\t/m);
    expect((await ann.run(['complete', '--', 'config', ''])).stdout).toMatch(/^set\t/m);
    expect((await ann.run(['complete', '--', 'deploy', '--im'])).stdout).toMatch(/^--image/m);
  });
});

describe('on a terminal', () => {
  /** Runs in a pseudo-terminal of script(1); everything it shows. */
  async function onTerminal(
    command: string,
    reply?: { after: string; say: string | (() => void) },
  ): Promise<{ code: number; screen: string }> {
    const child = spawn('script', ['-qefc', `stty cols 90 rows 24; ${command}`, '/dev/null'], {
      env: ann.environment({ TERM: 'xterm-256color', NODE: process.execPath, B: workbench.bundle }),
      stdio: 'pipe',
    });
    let screen = '';
    let said = false;
    child.stdout.on('data', (chunk) => {
      screen += String(chunk);
      if (!reply || said || !screen.includes(reply.after)) return;
      said = true;
      if (typeof reply.say === 'string') child.stdin.write(`${reply.say}\r`);
      else reply.say();
    });
    const [code] = (await once(child, 'close')) as [number];
    return { code, screen };
  }

  it('draws the deployment again and again, in colour, and leaves its end', async () => {
    await ann.run(['apps', 'create', 'screen']);
    const { code, screen } = await onTerminal(
      '"$NODE" "$B" deploy --app screen --image registry/stuck:1',
      { after: '⠋ ', say: () => world.app('screen').deploymentList[0]?.end('SUCCEEDED') },
    );
    expect(code).toBe(0);
    expect(screen).toContain('\u001b[32m✓\u001b[39m \u001b[1mDeploying screen v1');
    expect(screen.trimEnd()).toMatch(/is ready: http:\/\/screen\.demo\.localhost:8080$/);
  });

  it('shows no colour with NO_COLOR', async () => {
    const { screen } = await onTerminal('NO_COLOR=1 "$NODE" "$B" apps');
    expect(screen).not.toContain('\u001b');
  });

  it('asks for a password and does not show it', async () => {
    const { code, screen } = await onTerminal(
      `"$NODE" "$B" login ${world.server.url} --email ann@example.com`,
      { after: 'Password: ', say: password },
    );
    expect(code).toBe(0);
    expect(screen).toContain('Signed in to');
    expect(screen).not.toContain(password);
  });

  it('destroys only what is named again', async () => {
    await ann.run(['apps', 'create', 'precious']);
    const { code, screen } = await onTerminal('"$NODE" "$B" apps destroy precious', {
      after: 'to go on: ',
      say: 'no',
    });
    expect([code, screen]).toEqual([2, expect.stringContaining('nothing was destroyed')]);
    expect(world.app('precious').state).toBe('ACTIVE');
  });
});

describe('the package', () => {
  it('is one file without dependencies, and runs on the machine’s own Node too', () => {
    const cli = fileURLToPath(new URL('..', import.meta.url));
    const directory = mkdtempSync(join(workbench.directory, 'pack-'));
    const npm = (args: string[], cwd: string) =>
      execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    npm(['pack', '--pack-destination', directory], cli);
    const [tarball = ''] = readdirSync(directory);
    npm(
      [
        'install',
        '--offline',
        '--no-audit',
        '--no-fund',
        '--prefix',
        directory,
        join(directory, tarball),
      ],
      directory,
    );
    expect(
      readdirSync(join(directory, 'node_modules')).filter((name) => !name.startsWith('.')),
    ).toEqual(['@bulkhead']);
    const bin = join(directory, 'node_modules/.bin/bulkhead');
    for (const node of new Set([process.execPath, ...otherNodes()])) {
      expect(execFileSync(node, [bin, 'version'], { encoding: 'utf8' })).toMatch(
        /^bulkhead 0\.1\.0/,
      );
    }
  });
});

/** Node programs on PATH outside this workspace, of the versions that we support. */
function otherNodes(): string[] {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((directory) => !directory.includes('node_modules'))
    .map((directory) => join(directory, 'node'))
    .filter((path) => existsSync(path))
    .filter(
      (path) =>
        Number(/\d+/.exec(execFileSync(path, ['--version'], { encoding: 'utf8' }))?.[0]) >= 20,
    );
}
