/**
 * Where agents dial: a gRPC server under mutual TLS that hands each call to whoever asked for it.
 * A stream is given only to the node that it was asked of, by the name in the node's certificate.
 */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  DomainError,
  forbidden,
  subjects,
  unavailable,
  type DialRequest,
  type OpenStream,
} from '@bulkhead/protocol';
import {
  channelOptions,
  relayService,
  type Attendance,
  type Fleet,
  type FromNode,
  type ToNode,
} from '@bulkhead/protocol/relay';
import {
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type StatusObject,
} from '@grpc/grpc-js';
import type { Logger } from '../logger.ts';
import type { NatsLink } from '../nats/nats.ts';

export interface RelaySettings {
  readonly host: string;
  readonly port: number;
  /** Has `ca.pem`, `cert.pem` and `key.pem`. */
  readonly tlsDir: string;
  /** What agents dial, as host:port; null: host and port above. */
  readonly advertise: string | null;
}

/** From the asking to the agent's call. Milliseconds. */
const dialMs = 10_000;
/** Until an agent says which stream it comes for. Milliseconds. */
const helloMs = 5_000;
const nodeName = /(?:^|, )URI:bulkhead:node:(n[a-z0-9]{12})(?:,|$)/;

/** What to tell a node that says it is there; `endsAt`: of the certificate that it shows. */
type Attend = (node: string, endsAt: Date, attendance: Attendance) => Promise<Fleet>;

interface Waiting {
  readonly node: string;
  readonly take: (stream: NodeStream) => void;
}

export class Relay {
  readonly #settings: RelaySettings;
  readonly #nats: NatsLink;
  readonly #log: Logger;
  readonly #attend: Attend;
  readonly #waiting = new Map<string, Waiting>();
  #server: Server | null = null;
  #address = '';

  constructor(settings: RelaySettings, nats: NatsLink, log: Logger, attend: Attend) {
    this.#attend = attend;
    this.#settings = settings;
    this.#nats = nats;
    this.#log = log;
  }

  async start(): Promise<void> {
    const { host, port, tlsDir, advertise } = this.#settings;
    const [ca, key, cert] = await Promise.all(
      ['ca', 'key', 'cert'].map((name) => readFile(join(tlsDir, `${name}.pem`))),
    );
    if (!ca || !key || !cert) throw new Error(`no certificate in ${tlsDir}`);
    const secure = ServerCredentials.createSsl(ca, [{ private_key: key, cert_chain: cert }], true);
    const server = new Server({ ...channelOptions });
    server.addService(relayService, {
      carry: (call: ServerDuplexStream<FromNode, ToNode>) => void this.#taken(call),
      attend: (
        call: ServerUnaryCall<Attendance, Fleet>,
        answer: (error: Partial<StatusObject> | null, fleet?: Fleet) => void,
      ) => void this.#attended(call, answer),
    });
    const bound = await new Promise<number>((resolve, reject) =>
      server.bindAsync(`${host}:${port}`, secure, (error, chosen) =>
        error ? reject(error) : resolve(chosen),
      ),
    );
    this.#server = server;
    this.#address = advertise ?? `${host}:${bound}`;
  }

  stop(): void {
    this.#server?.forceShutdown();
    this.#server = null;
  }

  /**
   * Asks a node for a stream and tells it what to do. UNAVAILABLE when it does not come in time.
   * `signal`: whoever wanted it is gone.
   */
  async open(node: string, open: OpenStream, signal?: AbortSignal): Promise<NodeStream> {
    if (!this.#server) throw unavailable('This replica of the API takes no streams');
    const id = randomBytes(32).toString('base64url');
    const deadline = AbortSignal.any([AbortSignal.timeout(dialMs), ...(signal ? [signal] : [])]);
    const taken = Promise.withResolvers<NodeStream>();
    const giveUp = () =>
      taken.reject(unavailable('The node of this instance does not answer; try again'));
    deadline.addEventListener('abort', giveUp, { once: true });
    this.#waiting.set(id, { node, take: taken.resolve });
    try {
      // A signal that has fired says so to no listener that comes later.
      if (deadline.aborted) throw unavailable('Nobody waits for this stream any more');
      const request: DialRequest = { v: 1, stream: id, address: this.#address };
      this.#nats.nc.publish(subjects.dial(node), JSON.stringify(request));
      const stream = await taken.promise;
      await stream.send({ open: JSON.stringify(open) });
      return stream;
    } finally {
      this.#waiting.delete(id);
      deadline.removeEventListener('abort', giveUp);
    }
  }

  async #attended(
    call: ServerUnaryCall<Attendance, Fleet>,
    answer: (error: Partial<StatusObject> | null, fleet?: Fleet) => void,
  ): Promise<void> {
    const node = nodeOf(call);
    const endsAt = new Date(call.getAuthContext().sslPeerCertificate?.valid_to ?? '');
    try {
      if (node === undefined) throw forbidden('the certificate is no node’s');
      answer(null, await this.#attend(node, endsAt, call.request));
    } catch (error) {
      const known = error instanceof DomainError ? error : null;
      if (!known) this.#log.error({ err: error, node }, 'a node’s attendance failed');
      const code =
        known?.code === 'NOT_FOUND' || known?.code === 'FORBIDDEN'
          ? status.PERMISSION_DENIED
          : known?.code === 'INVALID'
            ? status.INVALID_ARGUMENT
            : status.UNAVAILABLE;
      answer({ code, details: known?.message ?? 'try again' });
    }
  }

  async #taken(call: ServerDuplexStream<FromNode, ToNode>): Promise<void> {
    const refuse = (why: string) => {
      this.#log.warn({ why, peer: call.getPeer() }, 'a stream was refused');
      call.emit('error', { code: status.PERMISSION_DENIED, details: 'no such stream' });
    };
    const node = nodeOf(call);
    if (node === undefined) return refuse('the certificate is no node’s');
    const stream = new NodeStream(call);
    const first = await Promise.race([stream.first(), delay(helloMs, null, { ref: false })]);
    const id = first?.hello?.stream ?? '';
    const waiting = this.#waiting.get(id);
    if (!waiting) return refuse('nobody waits for it');
    // Known only to the node that was asked; another one that came to know it gets nothing.
    if (waiting.node !== node) return refuse('it was asked of another node');
    this.#waiting.delete(id);
    waiting.take(stream);
  }
}

/** Who calls, by its certificate. */
const nodeOf = (call: Pick<ServerUnaryCall<unknown, unknown>, 'getAuthContext'>) =>
  nodeName.exec(call.getAuthContext().sslPeerCertificate?.subjectaltname ?? '')?.[1];

/** The API's end of one stream: frames in order, no faster than the other side takes them. */
export class NodeStream {
  readonly #call: ServerDuplexStream<FromNode, ToNode>;
  readonly #frames: AsyncGenerator<FromNode>;
  readonly #closed = new AbortController();
  /** Aborted when the node is gone, or has said all. */
  readonly closed: AbortSignal = this.#closed.signal;

  constructor(call: ServerDuplexStream<FromNode, ToNode>) {
    this.#call = call;
    const close = () => this.#closed.abort();
    call.on('cancelled', close).on('error', close).on('close', close);
    this.#frames = this.#read();
  }

  /** Resolves when there is room for the next; at once when nobody listens any more. */
  async send(frame: ToNode): Promise<void> {
    if (this.closed.aborted || this.#call.writableEnded) return;
    if (this.#call.write(frame)) return;
    await new Promise<void>((resolve) => {
      const go = () => {
        this.#call.off('drain', go);
        this.closed.removeEventListener('abort', go);
        resolve();
      };
      this.#call.once('drain', go);
      this.closed.addEventListener('abort', go, { once: true });
    });
  }

  /** The next frame; null at the end. */
  async first(): Promise<FromNode | null> {
    const next = await this.#frames.next();
    return next.done === true ? null : next.value;
  }

  /** Ends without an error when the node is gone; a whole stream ends with `exit` or `failure`. */
  frames(): AsyncIterable<FromNode> {
    return this.#frames;
  }

  async *#read(): AsyncGenerator<FromNode> {
    try {
      for await (const frame of this.#call as AsyncIterable<FromNode>) yield frame;
    } catch {
      // `closed` says so.
    }
    this.#closed.abort();
  }

  /** The node ends what it does for it. */
  close(): void {
    this.#closed.abort();
    if (!this.#call.writableEnded) this.#call.end();
  }
}
