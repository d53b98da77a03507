/**
 * The gate (deploy/services/gate.ts) is a HAProxy by which other hosts reach NATS and the registry,
 * under mutual TLS. It lets in the nodes on its list; when it starts, the list is empty and nobody
 * gets in. This keeps the list as the database has it, through HAProxy's admin socket.
 */
import { connect } from 'node:net';

const deadlineMs = 3_000;
const nodeName = /\b(n[a-z0-9]{12})\b/;

/** Everything by which a node that was removed may still be connected. */
const servers = ['nats/nats', 'registry/registry', 'api/api'];

export class Gate {
  readonly #socket: string;
  readonly #list: string;

  /** @param list The file that HAProxy knows the list by. */
  constructor(socket: string, list: string) {
    this.#socket = socket;
    this.#list = list;
  }

  /** Lets a node in. */
  async admit(node: string): Promise<void> {
    await this.#command(`add acl ${this.#list} ${node}`);
  }

  /**
   * Lets in these nodes and no others. `read` is asked after the list was looked at: who joins in
   * between must not be taken for one that was removed. The connections of one that is shut out end at once; HAProxy
   * cannot tell whose a connection is, so all do, and those who may come back do.
   */
  async sync(
    read: () => Promise<readonly string[]>,
  ): Promise<{ admitted: number; shutOut: number }> {
    const known = new Set(
      (await this.#command(`show acl ${this.#list}`))
        .split('\n')
        .flatMap((line) => nodeName.exec(line)?.[1] ?? []),
    );
    const nodes = await read();
    const wanted = new Set(nodes);
    const missing = nodes.filter((node) => !known.has(node));
    const removed = [...known].filter((node) => !wanted.has(node));
    for (const node of missing) await this.admit(node);
    for (const node of removed) await this.#command(`del acl ${this.#list} ${node}`);
    if (removed.length > 0)
      for (const server of servers) await this.#command(`shutdown sessions server ${server}`);
    return { admitted: missing.length, shutOut: removed.length };
  }

  /** HAProxy answers one command for each connection. */
  #command(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socket);
      let answer = '';
      socket.setTimeout(deadlineMs, () => socket.destroy(new Error('the gate does not answer')));
      socket.setEncoding('utf8').on('data', (text: string) => (answer += text));
      socket.on('error', reject);
      socket.on('close', () => resolve(answer.trim()));
      socket.end(`${command}\n`);
    });
  }
}
