import { WebSocket } from 'ws';
import type { ApiClient } from './client.ts';

/** Bytes of the protocol's channels; written out, since this client has nothing of ours in it. */
const [data, errorData, control] = [0, 1, 2];

/** A stream's client end: what came, and how it ended. */
export class Stream {
  readonly chunks: Buffer[] = [];
  err = '';
  started = false;
  /** Of the command; null while it runs. */
  exit: number | null = null;
  failure: { code: string; message: string } | null = null;
  readonly closed: Promise<number>;
  readonly #socket: WebSocket;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('message', (message: Buffer) => {
      const rest = message.subarray(1);
      if (message[0] === data) this.chunks.push(rest);
      if (message[0] === errorData) this.err += rest.toString();
      if (message[0] !== control) return;
      const said = JSON.parse(rest.toString()) as { kind: string; code: never; message: string };
      if (said.kind === 'started') this.started = true;
      // The far side has said all; so have we.
      if (said.kind === 'end') this.say({ kind: 'end' });
      if (said.kind === 'exit') this.exit = said.code;
      if (said.kind === 'failure') this.failure = { code: said.code, message: said.message };
    });
  }

  static async open(api: ApiClient, ticket: string): Promise<Stream> {
    const url = api.url.replace('http', 'ws').replace('/graphql', '/streams');
    const socket = new WebSocket(url, 'bulkhead-stream-v1');
    const stream = new Stream(socket);
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    socket.send(JSON.stringify({ ticket }));
    return stream;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
  get out(): string {
    return this.bytes.toString();
  }

  write(bytes: string | Buffer): void {
    this.#socket.send(Buffer.concat([Buffer.of(data), Buffer.from(bytes)]));
  }
  say(what: object): void {
    this.#socket.send(Buffer.concat([Buffer.of(control), Buffer.from(JSON.stringify(what))]));
  }
  leave(): void {
    this.#socket.terminate();
  }

  /** Everything it said, when it is over. */
  async over(): Promise<this> {
    await this.closed;
    return this;
  }
}
