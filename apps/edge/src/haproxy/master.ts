import { connect } from 'node:net';

/** HAProxy is not running, or is just replacing itself. */
export class HaproxyDown extends Error {
  override readonly name = 'HaproxyDown';
}

export interface HaproxyProcess {
  readonly pid: number;
  /** The current worker takes connections; old ones only finish what they have. */
  readonly role: 'current' | 'old';
}

/** No answer takes longer than this, ms. */
const answerMs = 5000;

/**
 * HAProxy's master socket, one connection for each command (0.4 ms). Through it every worker can be
 * reached by its process id, those too that a reload left finishing their requests.
 */
export class HaproxyMaster {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** The workers, the current one first; none while it is being started. */
  async workers(): Promise<HaproxyProcess[]> {
    return parseProcesses(await this.#send('show proc'));
  }

  /** One command to one worker; the answer without its trailing empty lines. */
  run(worker: Pick<HaproxyProcess, 'pid'>, command: string): Promise<string> {
    return this.#send(`@!${worker.pid} ${command}`);
  }

  /** One of the commands that HAProxy may change in a later version. */
  runExperimental(worker: HaproxyProcess, command: string): Promise<string> {
    return this.#send(`experimental-mode on; @!${worker.pid} ${command}`);
  }

  /** Asks for a reload; the master closes the connection and executes itself anew. */
  async reload(): Promise<void> {
    await this.#send('reload');
  }

  #send(line: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socket);
      const chunks: Buffer[] = [];
      socket.setTimeout(answerMs, () => {
        socket.destroy(new HaproxyDown(`no answer within ${answerMs} ms to "${line}"`));
      });
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('error', (error: NodeJS.ErrnoException) => {
        const absent = ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(error.code ?? '');
        reject(
          absent ? new HaproxyDown(`HAProxy's master does not answer: ${error.message}`) : error,
        );
      });
      socket.on('end', () => {
        resolve(Buffer.concat(chunks).toString('utf8').trimEnd());
      });
      socket.end(`${line}\n`);
    });
  }
}

function parseProcesses(text: string): HaproxyProcess[] {
  const found: HaproxyProcess[] = [];
  let role: HaproxyProcess['role'] | null = null;
  for (const line of text.split('\n')) {
    if (line.startsWith('# workers')) role = 'current';
    else if (line.startsWith('# old workers')) role = 'old';
    else if (line.startsWith('#')) role = null;
    else if (role !== null) {
      const match = /^(\d+)\s+worker\s/.exec(line);
      if (match) found.push({ pid: Number(match[1]), role });
    }
  }
  return found;
}
