import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A directory of one test file: the bundle under test, and homes for the people in the tests. */
export class Workbench {
  readonly directory = mkdtempSync(join(tmpdir(), 'bulkhead-cli-'));
  readonly bundle = join(this.directory, 'bulkhead.mjs');

  constructor() {
    execFileSync(process.execPath, [join(root, 'build.mjs'), this.bundle], { stdio: 'inherit' });
  }

  /** A person: a home with contexts of their own. */
  person(env: NodeJS.ProcessEnv = {}): Person {
    return new Person(this, mkdtempSync(join(this.directory, 'home-')), env);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Called with everything written so far, after each piece. */
  readonly onOutput?: (
    ran: { stdout: string; stderr: string },
    child: ReturnType<typeof spawn>,
  ) => void;
}

export class Person {
  readonly home: string;
  readonly workbench: Workbench;
  readonly #env: NodeJS.ProcessEnv;

  constructor(workbench: Workbench, home: string, env: NodeJS.ProcessEnv) {
    this.workbench = workbench;
    this.home = home;
    this.#env = env;
  }

  get configFile(): string {
    return join(this.home, 'bulkhead', 'config.json');
  }

  environment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    const { PATH, TMPDIR } = process.env;
    return {
      PATH,
      TMPDIR,
      HOME: this.home,
      XDG_CONFIG_HOME: this.home,
      TZ: 'UTC',
      ...this.#env,
      ...extra,
    };
  }

  /** Runs the bundle as a program of its own. */
  run(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [this.workbench.bundle, ...args], {
        env: this.environment(options.env),
        cwd: options.cwd ?? this.home,
        stdio: 'pipe',
      });
      const ran = { stdout: '', stderr: '' };
      const collect = (name: 'stdout' | 'stderr') => (chunk: unknown) => {
        ran[name] += String(chunk);
        options.onOutput?.(ran, child);
      };
      child.stdout.on('data', collect('stdout'));
      child.stderr.on('data', collect('stderr'));
      child.on('error', reject);
      child.on('close', (code) => resolve({ code, ...ran }));
      child.stdin.on('error', () => undefined);
      child.stdin.end(options.stdin ?? '');
    });
  }

  /** Runs with --json and gives what came on stdout. Fails with stderr when the exit code is not 0. */
  async json<T>(args: readonly string[], options: RunOptions = {}): Promise<T> {
    const ran = await this.run([...args, '--json'], options);
    if (ran.code !== 0) throw new Error(`exit code ${String(ran.code)}: ${ran.stderr}`);
    return JSON.parse(ran.stdout) as T;
  }
}
