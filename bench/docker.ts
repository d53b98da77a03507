import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { join } from 'node:path';
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

  /** Brings the image of an OCI layout in; `work` is a directory for what lies between. */
  async load(layout: string, name: string, work: string): Promise<void> {
    const archive = join(work, `${name.split(':')[0]}.tar`);
    await run('skopeo', ['copy', '-q', `oci:${layout}`, `docker-archive:${archive}:${name}`]);
    await this.cli('load', '-q', '-i', archive);
    await rm(archive);
  }

  /** As `docker run -d` does it, but over one kept connection and without a process for the client. */
  async createAndStart(name: string, image: string, command: readonly string[]): Promise<void> {
    await this.post(`/containers/create?name=${name}`, {
      Image: image,
      Cmd: command,
      HostConfig: {
        NanoCpus: 1_000_000_000,
        CpuShares: 102,
        Memory: 64 * 2 ** 20,
        MemorySwap: 64 * 2 ** 20,
        PidsLimit: 64,
        SecurityOpt: ['no-new-privileges'],
      },
    });
    await this.post(`/containers/${name}/start`, null);
  }

  private readonly connections = new Agent({ keepAlive: true });

  private post(path: string, body: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      const text = body === null ? '' : JSON.stringify(body);
      const request = httpRequest({
        socketPath: `${this.dir}/docker.sock`,
        agent: this.connections,
        method: 'POST',
        path,
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
      });
      request.on('error', reject);
      request.on('response', (response) => {
        response.resume();
        response.on('end', () =>
          (response.statusCode ?? 500) < 300
            ? resolve()
            : reject(new Error(`${path} answered ${response.statusCode}`)),
        );
      });
      request.end(text);
    });
  }

  async removeAll(): Promise<void> {
    const ids = await this.cli('ps', '-aq');
    if (ids !== '') await this.cli('rm', '-f', ...ids.split('\n'));
  }

  /** dockerd's process, for a look into its network namespace. */
  get pid(): number {
    return this.daemon.pid!;
  }

  /** Removes every container, ends the daemon and deletes its data. */
  async stop(): Promise<void> {
    this.connections.destroy();
    await this.removeAll();
    this.daemon.kill('SIGTERM');
    await until(
      'dockerd has ended',
      () => this.daemon.exitCode !== null || this.daemon.signalCode !== null,
    );
    await rm(this.dir, { recursive: true, force: true });
  }
}
