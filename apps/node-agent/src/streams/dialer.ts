/**
 * Streams of this node: a replica of the API asks over NATS, the agent dials it by gRPC under mutual
 * TLS and is told what to do. The asking is not trusted (whoever is on NATS may forge one): it names
 * a place to dial, where only a replica with the fleet's certificate is listened to.
 */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  apiServerName,
  dialRequest,
  DomainError,
  openStream,
  subjects,
  unavailable,
  type DialRequest,
  type OpenStream,
} from '@bulkhead/protocol';
import { channelOptions, RelayClient } from '@bulkhead/protocol/relay';
import { RuntimeError } from '@bulkhead/runtime';
import { credentials } from '@grpc/grpc-js';
import type { NatsConnection, Subscription } from 'nats';
import type { Logger } from 'pino';
import type { AgentMetrics } from '../metrics.ts';
import { serve, type ServeOptions } from './serve.ts';
import { Wire } from './wire.ts';

const mostStreams = 1000;
const mostPerInstance = 50;
/** Until the replica has said what to do, ms. */
const openDeadlineMs = 10_000;
/** A channel that nothing uses is closed after this, ms. */
const idleMs = 60_000;

export interface StreamsOptions extends ServeOptions {
  readonly node: string;
  /** Has `ca.pem`, `cert.pem` and `key.pem`. */
  readonly tlsDir: string;
  readonly metrics: AgentMetrics;
  readonly log: Logger;
}

interface Channel {
  readonly client: RelayClient;
  readonly certificate: number;
  streams: number;
  idle: NodeJS.Timeout | null;
}

export class Streams {
  readonly #o: StreamsOptions;
  readonly #channels = new Map<string, Channel>();
  readonly #perInstance = new Map<string, number>();
  readonly #wires = new Set<Wire>();
  /** A subscription survives a reconnection. */
  readonly #heard = new WeakSet<NatsConnection>();

  constructor(options: StreamsOptions) {
    this.#o = options;
  }

  /** Listens for as long as the connection lives. */
  listen(connection: NatsConnection): void {
    if (this.#heard.has(connection)) return;
    this.#heard.add(connection);
    const subscription = connection.subscribe(subjects.dial(this.#o.node));
    this.#follow(subscription).catch((error: unknown) =>
      this.#o.log.error({ err: error }, 'this node cannot be asked for streams'),
    );
  }

  async #follow(subscription: Subscription): Promise<void> {
    for await (const message of subscription) {
      const parsed = dialRequest.safeParse(jsonOf(message.data));
      if (!parsed.success) continue;
      this.#dial(parsed.data).catch((error: unknown) =>
        this.#o.log.warn({ err: error }, 'a stream failed'),
      );
    }
  }

  stop(): void {
    for (const wire of this.#wires) wire.cancel();
    for (const [address, channel] of this.#channels) this.#close(address, channel);
  }

  async #dial({ stream, address }: DialRequest): Promise<void> {
    if (this.#wires.size >= mostStreams) return;
    const channel = await this.#channel(address);
    const wire = new Wire(channel.client.carry());
    this.#wires.add(wire);
    channel.streams += 1;
    try {
      await wire.send({ hello: { stream } });
      await this.#answer(wire);
    } finally {
      wire.end();
      this.#wires.delete(wire);
      channel.streams -= 1;
      if (channel.streams === 0) this.#closeWhenIdle(address, channel);
    }
  }

  async #answer(wire: Wire): Promise<void> {
    const late = setTimeout(() => wire.cancel(), openDeadlineMs);
    const first = await wire.first().finally(() => clearTimeout(late));
    if (first?.open === undefined) return wire.cancel();
    const { metrics, log } = this.#o;
    let open: OpenStream;
    try {
      open = openStream.parse(JSON.parse(first.open));
    } catch (error) {
      log.warn({ err: error }, 'a replica asked for a stream that this agent does not know');
      return this.#fail(wire, unavailable('the node does not know this kind of stream'));
    }
    const instance = 'instance' in open ? open.instance : null;
    const leave = this.#enter(instance);
    if (leave === null)
      return this.#fail(
        wire,
        new DomainError('CONFLICT', `${mostPerInstance} streams to this instance are open already`),
      );
    metrics.streams.inc({ kind: open.kind });
    try {
      const code = await serve(open, wire, this.#o);
      await wire.send({ exit: { code } });
    } catch (error) {
      await this.#fail(wire, error);
    } finally {
      leave();
      metrics.streams.dec({ kind: open.kind });
      metrics.streamBytes.inc({ direction: 'in' }, wire.bytesIn);
      metrics.streamBytes.inc({ direction: 'out' }, wire.bytesOut);
    }
  }

  /** Null when there are too many for the instance. */
  #enter(instance: string | null): (() => void) | null {
    if (instance === null) return () => undefined;
    const open = this.#perInstance.get(instance) ?? 0;
    if (open >= mostPerInstance) return null;
    this.#perInstance.set(instance, open + 1);
    return () => {
      const left = (this.#perInstance.get(instance) ?? 1) - 1;
      if (left > 0) this.#perInstance.set(instance, left);
      else this.#perInstance.delete(instance);
    };
  }

  async #fail(wire: Wire, error: unknown): Promise<void> {
    const { code, message } = failureOf(error);
    if (code === 'UNAVAILABLE') this.#o.log.warn({ err: error }, 'a stream could not be served');
    await wire.send({ failure: { code, message } });
  }

  async #channel(address: string): Promise<Channel> {
    const { tlsDir } = this.#o;
    const file = (name: string) => join(tlsDir, `${name}.pem`);
    // A renewed certificate is taken with the next dial.
    const certificate = (await stat(file('cert'))).mtimeMs;
    const known = this.#channels.get(address);
    if (known?.certificate === certificate) {
      if (known.idle !== null) clearTimeout(known.idle);
      known.idle = null;
      return known;
    }
    const [ca, key, cert] = await Promise.all(
      ['ca', 'key', 'cert'].map((name) => readFile(file(name))),
    );
    const secure = credentials.createSsl(ca, key, cert);
    const client = new RelayClient(address, secure, {
      ...channelOptions,
      'grpc.ssl_target_name_override': apiServerName,
      'grpc.default_authority': apiServerName,
    });
    const channel: Channel = { client, certificate, streams: 0, idle: null };
    if (known) this.#closeWhenIdle(address, known);
    this.#channels.set(address, channel);
    return channel;
  }

  #closeWhenIdle(address: string, channel: Channel): void {
    channel.idle ??= setTimeout(() => {
      channel.idle = null;
      if (channel.streams === 0) this.#close(address, channel);
    }, idleMs).unref();
  }

  #close(address: string, channel: Channel): void {
    if (channel.idle !== null) clearTimeout(channel.idle);
    channel.client.close();
    if (this.#channels.get(address) === channel) this.#channels.delete(address);
  }
}

/** Words for the tenant; what is unexpected stays in the agent's log. */
export function failureOf(error: unknown): { code: string; message: string } {
  if (error instanceof DomainError) return { code: error.code, message: error.message };
  if (!(error instanceof RuntimeError))
    return { code: 'UNAVAILABLE', message: 'the node could not do it; try again' };
  const { message } = error;
  switch (error.reason) {
    case 'not-running':
    case 'out-of-disk':
      return { code: 'CONFLICT', message };
    case 'exec-refused':
    case 'copy-failed':
      return { code: 'INVALID', message };
    case 'file-not-found':
      return { code: 'NOT_FOUND', message };
    default:
      return { code: 'UNAVAILABLE', message };
  }
}

function jsonOf(data: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(data).toString('utf8'));
  } catch {
    return null;
  }
}
