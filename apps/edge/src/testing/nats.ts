import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inboxPrefix, streams, subjects, type Route } from '@bulkhead/protocol';
import {
  createAccount,
  createOperator,
  createUser,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fmtCreds,
} from '@nats-io/jwt';
import { Kvm, type KV } from '@nats-io/kv';
import { connect, credsAuthenticator, type NatsConnection } from 'nats';
import { freePort, stopped, until } from './machine.ts';

function natsServerBinary(): string {
  const found = process.env['NATS_SERVER_BIN'];
  if (!found) throw new Error('no nats-server: `npm test` fetches one and sets NATS_SERVER_BIN');
  return found;
}

/** A real nats-server in operator mode: an API that may do everything, an edge with its own rights only. */
export class TestNats {
  readonly url: string;
  readonly edgeCreds: string;
  readonly #config: string;
  readonly #store: string;
  readonly #apiCreds: Uint8Array;
  #child: ChildProcess | null = null;
  #api: NatsConnection | null = null;

  private constructor(dir: string, port: number, edgeCreds: string, apiCreds: Uint8Array) {
    this.url = `nats://127.0.0.1:${port}`;
    this.edgeCreds = edgeCreds;
    this.#config = join(dir, 'nats.conf');
    this.#store = join(dir, 'nats-store');
    this.#apiCreds = apiCreds;
  }

  static async make(dir: string, edge: string): Promise<TestNats> {
    const port = await freePort();
    const operator = createOperator();
    const account = createAccount();
    // JetStream in operator mode insists on a system account.
    const system = createAccount();
    const signer = { signer: operator };
    const systemJwt = await encodeAccount('SYS', system, {}, signer);
    const limits = {
      conn: -1,
      subs: -1,
      data: -1,
      payload: -1,
      mem_storage: -1,
      disk_storage: -1,
      streams: -1,
      consumer: -1,
    };
    const accountJwt = await encodeAccount('PLATFORM', account, { limits } as never, signer);
    const consumer = `KV_${streams.routesBucket}.routes-${edge}`;
    const creds = async (name: string, publish: string[], subscribe: string[]) => {
      const user = createUser();
      const jwt = await encodeUser(name, user, account, {
        pub: { allow: publish },
        sub: { allow: subscribe },
      } as never);
      return fmtCreds(jwt, user);
    };
    const edgeFile = join(dir, 'edge.creds');
    writeFileSync(
      edgeFile,
      await creds(
        edge,
        [
          `$JS.API.CONSUMER.CREATE.${consumer}.$KV.${streams.routesBucket}.>`,
          ...['DELETE', 'INFO', 'MSG.NEXT'].map((verb) => `$JS.API.CONSUMER.${verb}.${consumer}`),
          subjects.edgeApplied(edge),
          subjects.edgeHeartbeat(edge),
          subjects.edgeTraffic(edge),
        ],
        [`${inboxPrefix(edge)}.>`],
      ),
      { mode: 0o600 },
    );
    const nats = new TestNats(dir, port, edgeFile, await creds('api', ['>'], ['>']));
    writeFileSync(
      nats.#config,
      `listen: "127.0.0.1:${port}"
operator: ${await encodeOperator('test', operator, { system_account: system.getPublicKey() })}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${system.getPublicKey()}: ${systemJwt}
  ${account.getPublicKey()}: ${accountJwt}
}
jetstream { store_dir: "${nats.#store}" }
`,
    );
    return nats;
  }

  async start(): Promise<void> {
    mkdirSync(this.#store, { recursive: true });
    this.#child = spawn(natsServerBinary(), ['-c', this.#config], { stdio: 'ignore' });
    this.#api = await until('nats-server answers', () =>
      connect({
        servers: this.url,
        authenticator: credsAuthenticator(this.#apiCreds),
        reconnect: false,
      }),
    );
  }

  async stop(): Promise<void> {
    await this.#api?.close();
    this.#child?.kill('SIGKILL');
    if (this.#child) await stopped(this.#child);
    this.#child = null;
  }

  /** As after a power cut: no streams left. */
  async wipe(): Promise<void> {
    await this.stop();
    rmSync(this.#store, { recursive: true, force: true });
    await this.start();
  }

  get api(): NatsConnection {
    if (!this.#api) throw new Error('nats is not started');
    return this.#api;
  }

  bucket(): Promise<KV> {
    return new Kvm(this.api).create(streams.routesBucket, { history: 1 });
  }

  async put(kv: KV, route: Route): Promise<void> {
    await kv.put(route.host, JSON.stringify(route));
  }
}
