import { closeFd, openSocket, receive, send, SyscallError } from './syscalls.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
export const NLM_F_REQUEST = 1;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_REPLACE = 0x100;

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

/** One netlink attribute: header, value, padding to 4 bytes. */
export function attribute(type: number, value: Buffer | string | number): Buffer {
  const body =
    typeof value === 'string'
      ? Buffer.from(`${value}\0`)
      : typeof value === 'number'
        ? u32(value)
        : value;
  const out = Buffer.alloc((4 + body.length + 3) & ~3);
  out.writeUInt16LE(4 + body.length, 0);
  out.writeUInt16LE(type, 2);
  body.copy(out, 4);
  return out;
}

export const nested = (type: number, ...parts: readonly Buffer[]): Buffer =>
  attribute(type, Buffer.concat(parts));

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

/** For one answer at a time, of whichever socket: requests are synchronous. */
const buffer = Buffer.alloc(65_536);

/**
 * A netlink socket of the network namespace in which it was made. Requests are synchronous: the
 * kernel does the work inside `send`, microseconds each, where an `ip` process takes milliseconds.
 */
export class NetlinkSocket {
  readonly #fd: number;
  #sequence = 0;
  constructor(protocol: number) {
    this.#fd = openSocket(AF_NETLINK, SOCK_RAW, protocol);
  }

  /** Sends one message and returns the bodies of the answers; throws SyscallError when the kernel refuses. */
  request(what: string, type: number, flags: number, ...parts: readonly Buffer[]): Buffer[] {
    const body = Buffer.concat(parts);
    const sequence = ++this.#sequence;
    const header = Buffer.alloc(16);
    header.writeUInt32LE(16 + body.length, 0);
    header.writeUInt16LE(type, 4);
    header.writeUInt16LE(flags | NLM_F_REQUEST | NLM_F_ACK, 6);
    header.writeUInt32LE(sequence, 8);
    send(this.#fd, Buffer.concat([header, body]));
    return this.#answers(what, sequence);
  }

  #answers(what: string, sequence: number): Buffer[] {
    const answers: Buffer[] = [];
    for (;;) {
      const size = receive(this.#fd, buffer);
      for (let at = 0; at + 16 <= size;) {
        const length = buffer.readUInt32LE(at);
        const type = buffer.readUInt16LE(at + 4);
        if (buffer.readUInt32LE(at + 8) === sequence) {
          if (type === NLMSG_DONE) return answers;
          if (type === NLMSG_ERROR) {
            const errno = -buffer.readInt32LE(at + 16);
            if (errno !== 0) throw new SyscallError(what, errno);
            return answers;
          }
          answers.push(Buffer.from(buffer.subarray(at + 16, at + length)));
        }
        at += (length + 3) & ~3;
      }
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}
