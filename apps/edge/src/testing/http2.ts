import { once } from 'node:events';
import { connect } from 'node:net';

/** Node's client refuses to send what we want to try: RFC 9113's frames and RFC 7541's literals by hand. */
const types = { data: 0, headers: 1, reset: 3, settings: 4, goaway: 7 };

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Strings of fewer than 127 bytes, as they are. */
function literal(name: string, value: string): Buffer {
  const text = (each: string) => {
    const bytes = Buffer.from(each, 'latin1');
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  };
  return Buffer.concat([Buffer.from([0]), text(name), text(value)]);
}

/**
 * One request with exactly these headers over cleartext HTTP/2. Says what came back for it: the
 * status, or the frame that refused it.
 */
export async function rawHttp2(
  port: number,
  headers: readonly (readonly [string, string])[],
  body?: string,
): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const block = Buffer.concat(headers.map(([name, value]) => literal(name, value)));
  const endHeaders = 4;
  const endStream = 1;
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)));
  socket.write(frame(types.headers, endHeaders | (body === undefined ? endStream : 0), 1, block));
  if (body !== undefined)
    socket.write(frame(types.data, endStream, 1, Buffer.from(body, 'latin1')));
  let received = Buffer.alloc(0);
  try {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 9) {
        const length = received.readUIntBE(0, 3);
        if (received.length < 9 + length) break;
        const type = received.readUInt8(3);
        const stream = received.readUInt32BE(5);
        const payload = received.subarray(9, 9 + length);
        received = received.subarray(9 + length);
        if (type === types.goaway) return 'GOAWAY';
        if (stream === 1 && type === types.reset) return 'RST_STREAM';
        if (stream === 1 && type === types.headers) return statusOf(payload);
      }
    }
    return 'closed';
  } finally {
    socket.destroy();
  }
}

/** From RFC 7541's static table; HAProxy writes others as literals. */
function statusOf(block: Buffer): string {
  const known: Record<number, string> = { 0x88: '200', 0x8c: '400', 0x8d: '404', 0x8e: '500' };
  return known[block[0] ?? 0] ?? /\d{3}/.exec(block.toString('latin1'))?.[0] ?? 'unknown';
}
