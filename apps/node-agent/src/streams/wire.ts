import { mostFrameBytes } from '@bulkhead/protocol';
import type { FromNode, ToNode } from '@bulkhead/protocol/relay';
import type { ClientDuplexStream } from '@grpc/grpc-js';

/** The agent's end of one stream: frames in order, no faster than the other side takes them. */
export class Wire {
  readonly #call: ClientDuplexStream<FromNode, ToNode>;
  readonly #closed = new AbortController();
  /** Aborted when the other side is gone, whatever the reason. */
  readonly closed: AbortSignal = this.#closed.signal;
  readonly #frames: AsyncGenerator<ToNode>;
  bytesIn = 0;
  bytesOut = 0;

  constructor(call: ClientDuplexStream<FromNode, ToNode>) {
    this.#call = call;
    this.#frames = this.#read();
    const close = () => this.#closed.abort();
    // Every way to end comes as an error or an end; what it was is nobody's concern here.
    call.on('error', close).on('end', close).on('close', close).on('status', close);
  }

  /** Resolves when there is room for the next; at once when nobody listens any more. */
  async send(frame: FromNode): Promise<void> {
    if (this.closed.aborted) return;
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

  async sendData(kind: 'data' | 'errorData', bytes: Buffer): Promise<void> {
    this.bytesOut += bytes.length;
    for (let at = 0; at < bytes.length; at += mostFrameBytes)
      await this.send({ [kind]: bytes.subarray(at, at + mostFrameBytes) });
  }

  /** The first frame; null when the other side is gone before. */
  async first(): Promise<ToNode | null> {
    const next = await this.#frames.next();
    return next.done === true ? null : next.value;
  }

  /** The rest. */
  frames(): AsyncIterable<ToNode> {
    return this.#frames;
  }

  /** Ends without an error when the other side is gone. */
  async *#read(): AsyncGenerator<ToNode> {
    try {
      for await (const frame of this.#call as AsyncIterable<ToNode>) {
        this.bytesIn += frame.data?.length ?? 0;
        yield frame;
      }
    } catch {
      // `closed` says so.
    }
  }

  end(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#call.cancel();
  }
}
