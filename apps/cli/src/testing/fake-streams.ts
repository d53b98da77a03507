import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import { posix } from 'node:path';
import type { WebSocket } from 'ws';
import {
  channels,
  clientControl,
  streamTicket,
  type ClientControl,
  type ServerControl,
} from '@bulkhead/protocol';
import type { StreamTicket } from '../graphql/types.ts';

// The far side of streams: the real protocol, with programs of this machine in the place of
// containers, and `root` in that of their files.

/** What a ticket was given for. */
export type FakeStream =
  | { kind: 'run'; command: string[]; stdin: boolean; terminal: boolean }
  | { kind: 'copy-out' | 'copy-in'; path: string }
  | { kind: 'forward'; port: number }
  /** Whatever a test wants of it. */
  | { kind: 'scripted'; play: (far: FarSide) => void };

/** One socket, from the server's side. */
export class FarSide {
  readonly socket: WebSocket;
  readonly heard: ClientControl[] = [];
  onData: (bytes: Buffer) => void = () => undefined;
  onControl: (control: ClientControl) => void = () => undefined;

  constructor(socket: WebSocket) {
    this.socket = socket;
  }

  data(bytes: Buffer | string): void {
    this.#send(channels.data, Buffer.from(bytes));
  }
  errorData(bytes: Buffer | string): void {
    this.#send(channels.errorData, Buffer.from(bytes));
  }
  tell(control: ServerControl): void {
    this.#send(channels.control, Buffer.from(JSON.stringify(control)));
    if (control.kind === 'exit' || control.kind === 'failure') this.socket.close(1000);
  }
  hear(message: Buffer): void {
    if (message[0] === channels.data) this.onData(message.subarray(1));
    if (message[0] !== channels.control) return;
    const control = clientControl.parse(JSON.parse(message.subarray(1).toString()));
    this.heard.push(control);
    this.onControl(control);
  }
  #send(channel: number, bytes: Buffer): void {
    this.socket.send(Buffer.concat([Buffer.of(channel), bytes]), { binary: true });
  }
}

export class FakeStreams {
  /** What stands for the file system of every instance. */
  root = '/nonexistent';
  /** Every stream that was opened, newest last. */
  readonly opened: FarSide[] = [];
  /** Replaces what the next tickets are for. */
  script: ((far: FarSide) => void) | null = null;
  /** Where the socket is said to be; null: beside the API. */
  url: string | null = null;
  readonly #tickets = new Map<string, { stream: FakeStream; once: boolean }>();

  ticket(instance: string, stream: FakeStream, once = true): StreamTicket {
    const ticket = randomBytes(32).toString('base64url');
    const played: FakeStream =
      this.script === null ? stream : { kind: 'scripted', play: this.script };
    this.#tickets.set(ticket, { stream: played, once });
    const expiresAt = new Date(Date.now() + 30_000).toISOString();
    return { ticket, url: this.url, instance, expiresAt };
  }

  accept(socket: WebSocket): void {
    const far = new FarSide(socket);
    socket.once('message', (first, isBinary) => {
      const parsed = isBinary
        ? null
        : streamTicket.safeParse(JSON.parse((first as Buffer).toString()));
      const found = parsed?.success ? this.#tickets.get(parsed.data.ticket) : undefined;
      if (!parsed?.success || !found) {
        socket.close(1008, 'no such ticket');
        return;
      }
      if (found.once) this.#tickets.delete(parsed.data.ticket);
      this.opened.push(far);
      socket.on('message', (message, binary) => binary && far.hear(message as Buffer));
      this.#play(far, found.stream);
    });
  }

  #play(far: FarSide, stream: FakeStream): void {
    switch (stream.kind) {
      case 'scripted':
        stream.play(far);
        return;
      case 'run':
        far.tell({ kind: 'started' });
        this.#run(far, stream.command, 'run');
        return;
      case 'copy-out': {
        const whole = posix.normalize(stream.path).replace(/(.)\/$/, '$1');
        const [dir, name] =
          whole === '/' ? ['/', '.'] : [posix.dirname(whole), posix.basename(whole)];
        this.#run(far, ['tar', '-c', '-f', '-', '-C', this.root + dir, '--', name], stream.path);
        return;
      }
      case 'copy-in':
        this.#run(far, ['tar', '-x', '-f', '-', '-C', this.root + stream.path], stream.path);
        return;
      case 'forward': {
        const socket = createConnection({
          port: stream.port,
          host: '127.0.0.1',
          allowHalfOpen: true,
        });
        socket.on('data', (bytes: Buffer) => far.data(bytes));
        socket.on('end', () => far.tell({ kind: 'end' }));
        socket.on('close', () => far.tell({ kind: 'exit', code: 0 }));
        socket.on('error', () =>
          far.tell({ kind: 'failure', code: 'CONFLICT', message: 'nothing listens there' }),
        );
        far.onData = (bytes) => socket.write(bytes);
        far.onControl = ({ kind }) => kind === 'end' && socket.end();
        far.socket.on('close', () => socket.destroy());
      }
    }
  }

  /** A program of this machine in the place of one in a container. */
  #run(far: FarSide, [program = '', ...args]: string[], what: string): void {
    const child: ChildProcessWithoutNullStreams = spawn(program, args, { stdio: 'pipe' });
    let said = '';
    child.stdout.on('data', (bytes: Buffer) => far.data(bytes));
    child.stderr.on('data', (bytes: Buffer) => {
      said += bytes.toString();
      if (what === 'run') far.errorData(bytes);
    });
    child.stdin.on('error', () => undefined);
    child.on('error', (error) =>
      far.tell({ kind: 'failure', code: 'INVALID', message: `${program}: ${error.message}` }),
    );
    child.on('close', (code, signal) => {
      if (what !== 'run' && code !== 0) {
        const missing = /No such file|Cannot open|Cannot chdir/.test(said);
        const message = missing ? `There is no ${what} in the instance.` : said.trim();
        far.tell({ kind: 'failure', code: missing ? 'NOT_FOUND' : 'INVALID', message });
        return;
      }
      far.tell({ kind: 'exit', code: signal === 'SIGINT' ? 130 : signal ? 143 : (code ?? 1) });
    });
    far.onData = (bytes) => child.stdin.write(bytes);
    far.onControl = (control) => {
      if (control.kind === 'end') child.stdin.end();
      if (control.kind === 'signal') child.kill(control.name as NodeJS.Signals);
    };
    far.socket.on('close', () => child.kill('SIGKILL'));
  }
}
