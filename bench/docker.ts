import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { until } from '../e2e/support/until.ts';

const run = promisify(execFile);

/** The rival: Debian's Docker Engine, away from the host's network and mounts. */
export class Docker {
  readonly dir: string;
  private readonly daemon: ChildProcess;

  private constructor(dir: string, daemon: ChildProcess) {
    this.dir = dir;
    this.daemon = daemon;
  }

  /** Starts dockerd with its data below `dir`. Throws when it does not answer within a minute. */
  static async start(dir: string): Promise<Docker> {
    await mkdir(dir, { recursive: true });
    const daemon = spawn(
      'unshare',
      [
        ...['--net', '--mount', '--propagation', 'private', '--', 'sh', '-c'],
        // The one shell line here: loopback up, then become dockerd.
        'ip link set lo up && exec dockerd "$@"',
        'dockerd',
        ...['--data-root', `${dir}/data`, '--exec-root', `${dir}/exec`],
        ...['--host', `unix://${dir}/docker.sock`, '--pidfile', `${dir}/docker.pid`],
      ],
      { stdio: 'ignore', detached: true },
    );
    const docker = new Docker(dir, daemon);
    await until('dockerd answers', () => docker.cli('version'));
    return docker;
  }

  async cli(...args: string[]): Promise<string> {
    const { stdout } = await run('/usr/bin/docker', args, {
      env: { ...process.env, DOCKER_HOST: `unix://${this.dir}/docker.sock` },
      maxBuffer: 1 << 24,
    });
    return stdout.trim();
  }

  /** dockerd's process, for a look into its network namespace. */
  get pid(): number {
    return this.daemon.pid!;
  }

  /** Removes every container, ends the daemon and deletes its data. */
  async stop(): Promise<void> {
    const ids = await this.cli('ps', '-aq');
    if (ids !== '') await this.cli('rm', '-f', ...ids.split('\n'));
    this.daemon.kill('SIGTERM');
    await until(
      'dockerd has ended',
      () => this.daemon.exitCode !== null || this.daemon.signalCode !== null,
    );
    await rm(this.dir, { recursive: true, force: true });
  }
}
