import { WebSocket, type RawData } from 'ws';
import {
  channels,
  mostFrameBytes,
  serverControl,
  streamPath,
  streamProtocol,
  type ClientControl,
  type ServerControl,
  type TerminalSize,
} from '@bulkhead/protocol';
import { normaliseServer } from '../context/server.ts';
import { CliError, isErrorCode } from '../errors.ts';
import { unreachable, userAgent } from '../graphql/client.ts';
import type { StreamTicket } from '../graphql/types.ts';
import { plainText } from '../output/text.ts';
import type { Session } from '../session.ts';

// One stream to a container: a WebSocket that is opened once with a ticket and never again. What
// runs at its other end may not be there twice, so a lost connection is an error and no reason to
// try again.

/** What is done with what comes; the next thing waits until it is done. */
export interface Receiver {
  started?(): void;
  data(bytes: Buffer): void | Promise<void>;
  errorData?(bytes: Buffer): void | Promise<void>;
  end?(): void | Promise<void>;
}

/** Well below what the server allows. */
const pingMs = 5_000;
/** After so many without a word the connection counts as lost: a far side that is held up says nothing. */
const mostSilent = 12;
/** Messages that may wait for the receiver before we stop to read. */
const mostQueued = 16;
const most = mostFrameBytes - 1;

/** The connection broke before the far side had ended. */
export class StreamLost extends CliError {
  constructor(server: string, why: string) {
    super('UNAVAILABLE', `the connection to ${server} was lost${why === '' ? '' : `: ${why}`}`, {
      hint: 'What came so far is whole; how it went on is not known.',
    });
  }
}

export class Stream {
  /** The exit code of what ran; 0 for what has none. Rejects with what went wrong. */
  readonly done: Promise<number>;
  readonly #server: string;
  readonly #socket: WebSocket;
  readonly #receiver: Receiver;
  readonly #opened: Promise<void>;
  #queue: Promise<void> = Promise.resolve();
  #queued = 0;
  #open = false;
  #silent = 0;
  #ended = false;
  #outcome: number | Error | null = null;

  /** Connects and hands in the ticket. */
  constructor(session: Session, ticket: StreamTicket, receiver: Receiver) {
    const { server } = session.connection;
    this.#server = server;
    this.#receiver = receiver;
    this.#socket = new WebSocket(addressOf(session, ticket), streamProtocol, {
      handshakeTimeout: 10_000,
      maxPayload: 2 * mostFrameBytes,
      headers: { 'user-agent': userAgent },
    });
    this.#opened = new Promise((resolve, reject) => {
      this.#socket.once('open', () => {
        this.#open = true;
        this.#socket.send(JSON.stringify({ ticket: ticket.ticket }));
        resolve();
      });
      this.#socket.once('close', () => reject(new Error('closed')));
    });
    // Whoever sends hears of it by `done`.
    this.#opened.catch(() => undefined);
    this.done = this.#run();
  }

  /** Resolves when it has left this process, so that whoever waits for it never runs ahead. */
  async send(bytes: Buffer): Promise<void> {
    for (let from = 0; from < bytes.length; from += most)
      await this.#send(channels.data, bytes.subarray(from, from + most));
  }

  /** Nothing more will be sent. */
  end(): Promise<void> {
    return this.#tell({ kind: 'end' });
  }
  resize(size: TerminalSize): Promise<void> {
    return this.#tell({ kind: 'resize', size });
  }
  signal(name: string): Promise<void> {
    return this.#tell({ kind: 'signal', name });
  }

  /** Lets go of the far side. `done` ends with 0 unless it has ended otherwise before. */
  close(): void {
    this.#outcome ??= 0;
    this.#socket.close();
    // A far side that says nothing must not keep us.
    setTimeout(() => this.#socket.terminate(), 1_000).unref();
  }

  #tell(control: ClientControl): Promise<void> {
    return this.#send(channels.control, Buffer.from(JSON.stringify(control)));
  }

  async #send(channel: number, bytes: Buffer): Promise<void> {
    try {
      await this.#opened;
    } catch {
      return;
    }
    await new Promise<void>((resolve) => {
      this.#socket.send(Buffer.concat([Buffer.of(channel), bytes]), { binary: true }, () =>
        resolve(),
      );
    });
  }

  #run(): Promise<number> {
    const socket = this.#socket;
    const beat = setInterval(() => {
      // Who is held up, here or there, hears no answers: that is no loss.
      if (socket.isPaused || socket.bufferedAmount > 0) this.#silent = 0;
      else if ((this.#silent += 1) > mostSilent) socket.terminate();
      if (socket.readyState !== WebSocket.OPEN) return;
      socket.ping();
      // While we do not read, a ping goes unanswered: a reader who takes their time is alive still.
      if (socket.isPaused) socket.pong();
    }, pingMs);
    socket.on('pong', () => (this.#silent = 0));
    socket.on('ping', () => (this.#silent = 0));
    socket.on('message', (raw: RawData, isBinary: boolean) => {
      this.#silent = 0;
      if (isBinary) this.#enqueue(raw as Buffer);
    });
    socket.on('unexpected-response', (_request, response) => {
      this.#outcome ??= refusedUpgrade(this.#server, response.statusCode ?? 0);
      socket.terminate();
    });
    socket.on('error', (error) => {
      this.#outcome ??= this.#open
        ? new StreamLost(this.#server, plainText(error.message))
        : unreachable(this.#server, error);
    });
    return new Promise((resolve, reject) => {
      socket.once('close', (code, reason) => {
        clearInterval(beat);
        void this.#queue.then(() => {
          const outcome = this.#outcome ?? this.#closing(code, plainText(reason.toString()));
          if (typeof outcome === 'number') resolve(outcome);
          else reject(outcome);
        });
      });
    });
  }

  #closing(code: number, reason: string): number | Error {
    if (code === 1000 && this.#ended) return 0;
    if (code === 1000 || code === 1005 || code === 1006)
      return new StreamLost(this.#server, reason);
    const why = reason === '' ? `close code ${String(code)}` : reason;
    if (code === 1001 || (code >= 1011 && code < 3000)) return new StreamLost(this.#server, why);
    const ended = `the server ended the stream: ${why}`;
    if (code === 4401)
      return new CliError('UNAUTHENTICATED', ended, {
        hint: '`bulkhead whoami` shows who you are.',
      });
    return new CliError('FAILED', ended);
  }

  /** Messages are worked on one after the other; too many that wait stop the reading. */
  #enqueue(message: Buffer): void {
    this.#queued += 1;
    if (this.#queued >= mostQueued) this.#socket.pause();
    this.#queue = this.#queue
      .then(() => this.#take(message))
      .catch((error: unknown) => {
        this.#outcome ??= error as Error;
        this.#socket.close();
      })
      .then(() => {
        this.#queued -= 1;
        if (this.#queued === 0 && this.#socket.isPaused) this.#socket.resume();
      });
  }

  async #take(message: Buffer): Promise<void> {
    const bytes = message.subarray(1);
    switch (message[0]) {
      case channels.data:
        return this.#receiver.data(bytes);
      case channels.errorData:
        return this.#receiver.errorData?.(bytes);
      case channels.control:
        return this.#control(controlOf(bytes));
      default:
        // Of a later protocol; what we know goes on.
        return;
    }
  }

  async #control(control: ServerControl): Promise<void> {
    switch (control.kind) {
      case 'started':
        return this.#receiver.started?.();
      case 'end':
        this.#ended = true;
        return this.#receiver.end?.();
      case 'exit':
        this.#outcome ??= control.code;
        break;
      case 'failure': {
        const name = isErrorCode(control.code) ? control.code : 'FAILED';
        this.#outcome ??= new CliError(name, plainText(control.message), { code: control.code });
      }
    }
  }
}

function controlOf(bytes: Buffer): ServerControl {
  try {
    return serverControl.parse(JSON.parse(bytes.toString()));
  } catch {
    throw new CliError('UNAVAILABLE', 'the server says what this command does not understand', {
      hint: 'They are probably of different versions; see `bulkhead version`.',
    });
  }
}

/** A ticket is as good as the right to the stream: it goes only where a token might. */
function addressOf(session: Session, { url }: StreamTicket): string {
  const insecure = session.options.insecure === true || session.io.env['BULKHEAD_INSECURE'] === '1';
  const base =
    url === null || url.startsWith('/')
      ? `${session.connection.server}${url ?? streamPath}`
      : normaliseServer(url.replace(/^ws/, 'http'), insecure);
  return base.replace(/^http/, 'ws');
}

function refusedUpgrade(server: string, status: number): CliError {
  return new CliError(
    'UNAVAILABLE',
    `${server} opens no WebSocket for streams (HTTP ${String(status)})`,
    {
      hint: 'A proxy in between must let WebSockets through, and the API must not be older than this command.',
    },
  );
}
