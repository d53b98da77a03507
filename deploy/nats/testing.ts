/** A real nats-server with the platform's own configuration, on a free port, for one test. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { connect, credsAuthenticator, type ConnectionOptions, type NatsConnection } from 'nats';
import { until } from '../until.ts';
import { natsServerBinary } from './binary.ts';
import { natsConfig } from './config.ts';
import {
  issueNatsCreds,
  makeNatsSeeds,
  makeNatsTrust,
  makeUserSeed,
  type NatsSeeds,
} from './identity.ts';
import type { NatsPermissions } from '@bulkhead/protocol/bus-access';

export class PlatformNats {
  readonly seeds: NatsSeeds;
  readonly #port: number;
  readonly #stop: () => Promise<void>;
  readonly #connections: NatsConnection[] = [];

  private constructor(seeds: NatsSeeds, port: number, stop: () => Promise<void>) {
    this.seeds = seeds;
    this.#port = port;
    this.#stop = stop;
  }

  static async start(): Promise<PlatformNats> {
    const dir = await mkdtemp(join(tmpdir(), 'bulkhead-nats-'));
    const seeds = makeNatsSeeds();
    const storeDir = join(dir, 'jetstream');
    const portsDir = join(dir, 'ports');
    await mkdir(portsDir);
    const config = natsConfig({
      host: '127.0.0.1',
      port: -1,
      storeDir,
      trust: await makeNatsTrust(seeds),
    });
    await writeFile(join(dir, 'nats.conf'), config);
    const binary =
      process.env['NATS_SERVER_BIN'] ?? natsServerBinary(dirname(dirname(import.meta.dirname)));
    const child = spawn(binary, ['-c', join(dir, 'nats.conf'), '--ports_file_dir', portsDir], {
      stdio: 'ignore',
    });
    const ended = new Promise((resolve) => child.once('close', resolve));
    const stop = async () => {
      child.kill('SIGKILL');
      await ended;
      await rm(dir, { recursive: true, force: true });
    };
    try {
      return new PlatformNats(
        seeds,
        await until(() => readPort(portsDir), 10_000, 'nats-server does not start'),
        stop,
      );
    } catch (error) {
      await stop();
      throw error;
    }
  }

  /** A connection as a user of the platform's account with these permissions. */
  async connectAs(
    name: string,
    permissions: NatsPermissions,
    options: ConnectionOptions = {},
  ): Promise<NatsConnection> {
    const creds = await issueNatsCreds(this.seeds, { name, seed: makeUserSeed(), permissions });
    const connection = await connect({
      servers: `127.0.0.1:${this.#port}`,
      authenticator: credsAuthenticator(new TextEncoder().encode(creds)),
      inboxPrefix: `_INBOX_${name}`,
      reconnect: false,
      ...options,
    });
    this.#connections.push(connection);
    return connection;
  }

  /** A connection that says who it is in another way, or in none. */
  async connectWith(options: ConnectionOptions): Promise<NatsConnection> {
    const connection = await connect({
      servers: `127.0.0.1:${this.#port}`,
      reconnect: false,
      ...options,
    });
    this.#connections.push(connection);
    return connection;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
    await this.#stop();
  }
}

async function readPort(dir: string): Promise<number> {
  const [file] = await readdir(dir);
  if (file === undefined) throw new Error('no ports file yet');
  const ports = JSON.parse(await readFile(join(dir, file), 'utf8')) as { nats: string[] };
  return Number(new URL(ports.nats[0] ?? '').port);
}
